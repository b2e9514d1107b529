package web

import (
	"io/fs"
	"strings"
	"testing"
)

func TestFSHasAPage(t *testing.T) {
	page, err := fs.ReadFile(FS(), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "<title>Balai</title>") {
		t.Errorf("index.html has no title Balai:\n%s", page)
	}
}

func TestPageHasNothingInline(t *testing.T) {
	page, err := fs.ReadFile(FS(), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<style", "style=\"", "onload=", "onclick=", "http://", "https://"} {
		if strings.Contains(string(page), bad) {
			t.Errorf("index.html holds %q, which the content security policy forbids", bad)
		}
	}
	for _, tag := range strings.SplitAfter(string(page), "<script")[1:] {
		if !strings.Contains(tag[:strings.Index(tag, ">")], "src=") {
			t.Error("index.html holds an inline script")
		}
	}
}
