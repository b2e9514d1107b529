package node

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"balai/node/api"
)

// What the doctor says is in every language, with the same arguments, and nothing else is.
func TestTheDoctorsWordsAreInEveryLanguage(t *testing.T) {
	keys := map[string]bool{}
	for _, file := range doctorFiles(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && calls(call, "say") {
				key, ok := text(call.Args[0])
				if !ok {
					t.Errorf("what is said is not written at its place: %v", call.Args[0])
				}
				if given := len(call.Args) - 1; given != len(verbs(key)) {
					t.Errorf("%q is given %d arguments", key, given)
				}
				keys[key] = true
			}
			return true
		})
	}
	if len(keys) < 100 {
		t.Errorf("only %d texts were found", len(keys))
	}
	for lang, texts := range map[string]map[string]string{"id": indonesian, "zh": chinese} {
		for key := range keys {
			if got, ok := texts[key]; !ok {
				t.Errorf("%s: no %q", lang, key)
			} else if !slices.Equal(verbs(got), verbs(key)) {
				t.Errorf("%s: %q takes other arguments than %q", lang, got, key)
			}
		}
		for key := range texts {
			if !keys[key] {
				t.Errorf("%s: nobody says %q", lang, key)
			}
		}
	}
	for key := range englishPlurals {
		if !keys[key] {
			t.Errorf("nobody says %q", key)
		}
		one, two := wordsIn("en")(key, examples(key, 1)...), wordsIn("en")(key, examples(key, 2)...)
		if strings.Contains(one, "%!") || strings.Contains(one, " 1 ") || strings.Contains(two, "%!") || !strings.Contains(two, "2 ") {
			t.Errorf("%q of one and two: %q, %q", key, one, two)
		}
	}
}

// Every language fills in what it is given.
func TestTheDoctorsWordsTakeTheirArguments(t *testing.T) {
	for key := range indonesian {
		for _, lang := range []string{"en", "id", "zh"} {
			got := wordsIn(lang)(key, examples(key, 7)...)
			if strings.Contains(got, "%") || strings.Count(got, "7")-strings.Count(key, "7") != len(verbs(key)) {
				t.Errorf("%s of %q: %q", lang, key, got)
			}
		}
	}
}

// Nothing that a finding tells is said around the languages.
func TestNoFindingIsWithoutWording(t *testing.T) {
	said := 0
	for _, file := range doctorFiles(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !calls(call, "finding") {
				return true
			}
			for _, arg := range call.Args[2:] {
				ast.Inspect(arg, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok && calls(call, "say") {
						said++
						return false
					}
					if raw, ok := n.(*ast.BasicLit); ok && raw.Value != `""` && raw.Kind == token.STRING {
						t.Errorf("%s is English in every language", raw.Value)
					}
					return true
				})
			}
			return true
		})
	}
	if said < 80 {
		t.Errorf("only %d texts were found", said)
	}
}

// Latin words may be names, commands and settings; two in a row are a sentence.
var (
	sentence = regexp.MustCompile(`[A-Za-z']+ [A-Za-z']+`)
	ascii    = regexp.MustCompile(`[,;:!?.]( |$)`)
	verbatim = regexp.MustCompile(`balai (room|identity) [a-z]+( FILE)?|--relay (never|only-lan)|“[^”]*”|%(\[\d\])?[a-z]`)
)

func TestTheDoctorInChinese(t *testing.T) {
	for key, got := range chinese {
		if bare := verbatim.ReplaceAllString(got, ""); sentence.MatchString(bare) || ascii.MatchString(bare) {
			t.Errorf("%q is half Chinese: %q", key, got)
		}
	}
	ana := runDaemon(t, "Ana")
	c := ana.client()
	if _, err := c.Create(t.Context(), api.NewRoom{Name: "Two words", Visibility: "unlisted"}); err != nil {
		t.Fatal(err)
	}
	english, chinese := ana.doctor(""), ana.doctor("?lang=zh")
	if len(english) < 9 || len(chinese) != len(english) {
		t.Fatalf("%d findings, and in Chinese %d", len(english), len(chinese))
	}
	for i, f := range chinese {
		all := strings.Join([]string{f.Title, f.Detail, f.Action}, "\n")
		if latin := sentence.FindString(verbatim.ReplaceAllString(all, "")); latin != "" || f.Title == "" {
			t.Errorf("%q in %+v", latin, f)
		}
		if e := english[i]; e.Check != f.Check || e.Status != f.Status || sentence.FindString(e.Title) == "" {
			t.Errorf("not the same: %+v, %+v", e, f)
		}
	}
	if other := ana.doctor("?lang=tlh"); len(other) == 0 || other[0].Title != english[0].Title {
		t.Errorf("in a language that nobody knows: %+v", other)
	}
}

// doctor asks GET /doctor.
func (r *running) doctor(query string) (out []api.Finding) {
	r.t.Helper()
	if body := r.ask(http.MethodGet, "/doctor"+query, "", http.StatusOK); json.Unmarshal([]byte(body), &out) != nil {
		r.t.Fatalf("not findings: %s", body)
	}
	return out
}

func doctorFiles(t *testing.T) (out []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob("doctor*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

func calls(call *ast.CallExpr, name string) bool {
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == name
}

func text(e ast.Expr) (s string, ok bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

var verb = regexp.MustCompile(`%(?:\[(\d+)\])?([^\[])`)

// verbs are the verbs of a format in the order of their arguments, each with its place.
func verbs(format string) (out []string) {
	for i, v := range verb.FindAllStringSubmatch(format, -1) {
		at := v[1]
		if at == "" {
			at = strconv.Itoa(i + 1)
		}
		out = append(out, at+v[2])
	}
	slices.Sort(out)
	return out
}

// examples are arguments for a format, each n in its type.
func examples(format string, n int) (out []any) {
	for _, v := range verbs(format) {
		if strings.HasSuffix(v, "d") {
			out = append(out, n)
		} else {
			out = append(out, strconv.Itoa(n))
		}
	}
	return out
}
