package node_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "balai/"

// rule is what a package may import from us and from others. A name that ends in / allows all below it.
type rule struct{ ours, theirs []string }

var (
	peerID   = []string{"github.com/libp2p/go-libp2p/core/peer"}
	peerKeys = []string{"github.com/libp2p/go-libp2p/core/peer", "github.com/libp2p/go-libp2p/core/crypto"}
	protobuf = "google.golang.org/protobuf/"
	datas    = "github.com/ipfs/go-datastore"
	maddr    = "github.com/multiformats/go-multiaddr"
)

func with(list []string, more ...string) []string { return append(slices.Clone(list), more...) }

// imports is the whole architecture: a package that is not listed, or an import that is not allowed, fails.
// Change it in the same commit as docs/architecture.md.
var imports = map[string]rule{
	"identity":            {nil, with(peerKeys, "golang.org/x/crypto/argon2", "golang.org/x/crypto/chacha20poly1305", "github.com/tyler-smith/go-bip39/wordlists")},
	"room":                {nil, peerID},
	"room/wire":           {[]string{"identity"}, with(peerID, protobuf)},
	"room/invite":         {[]string{"identity", "room"}, with(peerID, "rsc.io/qr")},
	"room/ledger":         {[]string{"identity", "room", "room/wire"}, with(peerID, protobuf)},
	"room/election":       {[]string{"identity", "room", "room/wire"}, peerID},
	"room/overlay":        {[]string{"identity", "room", "room/wire", "room/election"}, peerID},
	"room/sframe":         {nil, nil},
	"room/media":          {nil, nil},
	"room/session":        {[]string{"identity", "room", "room/wire", "room/invite", "room/ledger", "room/election", "room/overlay", "room/sframe", "room/media"}, with(peerID, protobuf)},
	"node/p2p/rendezvous": {nil, []string{protobuf}},
	"node/p2p":            {[]string{"identity", "room", "room/wire", "room/media", "node/p2p/rendezvous"}, []string{"github.com/libp2p/", "github.com/quic-go/quic-go", maddr, maddr + "/net", "github.com/multiformats/go-multistream", datas, datas + "/", protobuf, "github.com/prometheus/client_golang/"}},
	"node/rtc":            {[]string{"room/media"}, []string{"github.com/pion/"}},
	"node/store":          {nil, []string{datas, datas + "/", "go.etcd.io/bbolt", "go.etcd.io/bbolt/"}},
	"node/web":            {nil, nil},
	"node/api":            {[]string{"identity", "room", "room/invite", "room/session"}, with(peerID, "github.com/danielgtaylor/huma/v2", "github.com/danielgtaylor/huma/v2/", "rsc.io/qr", "golang.org/x/time/rate")},
	"node": {
		[]string{"identity", "room", "room/wire", "room/invite", "room/ledger", "room/election", "room/overlay", "room/media", "room/session", "room/sframe", "node/api", "node/p2p", "node/rtc", "node/store", "node/web"},
		with(peerID, "github.com/libp2p/go-libp2p/core/protocol", "github.com/libp2p/go-libp2p/core/record", maddr, datas, datas+"/", protobuf, "github.com/prometheus/client_golang/", "golang.org/x/text/"),
	},
	"cmd/balai": {[]string{"identity", "node", "node/api", "room", "room/invite", "room/session"}, with(peerID, "github.com/alecthomas/kong", "github.com/pelletier/go-toml/v2", maddr, "golang.org/x/term")},
}

// Budgets: what the code we admire keeps to.
const (
	maxFunc     = 80
	maxFile     = 500
	maxExported = 28 // room/session: the shapes that the API shows are its own
	maxMethods  = 21 // a session: each is one thing that a person does in a room
	maxChain    = 8  // cmd, node, api, session, ledger, wire, identity and one to spare
)

// source is one parsed file of the product.
type source struct {
	pkg, path string
	file      *ast.File
	fset      *token.FileSet
}

func sources(t *testing.T) (out []source) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "test" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		out = append(out, source{strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../"), path, f, fset})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		r, ok := imports[s.pkg]
		if !ok {
			t.Errorf("%s: package %s is not in the import table", s.path, s.pkg)
			continue
		}
		for _, spec := range s.file.Imports {
			p := strings.Trim(spec.Path.Value, `"`)
			if our, ok := strings.CutPrefix(p, module); ok {
				if !slices.Contains(r.ours, our) {
					t.Errorf("%s: %s may not import %s", s.fset.Position(spec.Pos()), s.pkg, our)
				}
			} else if strings.Contains(strings.SplitN(p, "/", 2)[0], ".") && !slices.ContainsFunc(r.theirs, func(a string) bool {
				return p == a || strings.HasSuffix(a, "/") && strings.HasPrefix(p, a)
			}) {
				t.Errorf("%s: %s may not import %s", s.fset.Position(spec.Pos()), s.pkg, p)
			}
		}
	}
	for pkg := range imports {
		if n := chain(pkg); n > maxChain {
			t.Errorf("%s: import chain of %d, budget %d", pkg, n, maxChain)
		}
	}
}

// chain is the length of the longest chain of imports that the table allows.
func chain(pkg string) int {
	n := 0
	for _, p := range imports[pkg].ours {
		n = max(n, 1+chain(p))
	}
	return n
}

func TestBudgets(t *testing.T) {
	exported, methods, docs := map[string]int{}, map[string]int{}, map[string]int{}
	for _, s := range sources(t) {
		if s.file.Doc != nil {
			docs[s.pkg]++
		}
		if n := s.fset.Position(s.file.End()).Line; n > maxFile {
			t.Errorf("%s: %d lines, budget %d", s.path, n, maxFile)
		}
		for _, decl := range s.file.Decls {
			countDecl(t, s, decl, exported, methods)
		}
	}
	for typ, n := range methods {
		if n > maxMethods {
			t.Errorf("%s: %d exported methods, budget %d", typ, n, maxMethods)
		}
	}
	for pkg := range imports {
		if _, err := os.Stat(filepath.Join("..", pkg)); err != nil {
			t.Errorf("%s: in the table, but not there", pkg)
			continue
		}
		if docs[pkg] != 1 {
			t.Errorf("%s: %d package docs, want one", pkg, docs[pkg])
		}
		if exported[pkg] > maxExported {
			t.Errorf("%s: %d exported names, budget %d", pkg, exported[pkg], maxExported)
		}
	}
}

func countDecl(t *testing.T, s source, decl ast.Decl, exported, methods map[string]int) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if n := s.fset.Position(decl.End()).Line - s.fset.Position(decl.Pos()).Line; n > maxFunc {
			t.Errorf("%s: %s is %d lines, budget %d", s.fset.Position(decl.Pos()), decl.Name.Name, n, maxFunc)
		}
		switch {
		case !decl.Name.IsExported():
		case decl.Recv == nil:
			exported[s.pkg]++
		default:
			methods[s.pkg+"."+strings.TrimPrefix(types.ExprString(decl.Recv.List[0].Type), "*")]++
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() {
				exported[s.pkg]++
			}
		}
	}
}

// TestPion keeps pion to one package, and go-libp2p beyond its core to another.
func TestPion(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.file.Imports {
			p := strings.Trim(spec.Path.Value, `"`)
			if strings.HasPrefix(p, "github.com/pion/") && s.pkg != "node/rtc" {
				t.Errorf("%s imports %s", s.path, p)
			}
			if strings.HasPrefix(p, "github.com/libp2p/") && !strings.Contains(p, "/core/") && s.pkg != "node/p2p" {
				t.Errorf("%s imports %s", s.path, p)
			}
		}
	}
}

// TestFloors keeps indirect dependencies above the versions that had remote panics.
func TestFloors(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for module, floor := range map[string][3]int{"github.com/pion/webrtc/v4": {4, 2, 26}, "github.com/pion/stun/v3": {3, 1, 7}} {
		var at [3]int
		for line := range strings.Lines(string(mod)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), module+" v"); ok {
				if _, err := fmt.Sscanf(rest, "%d.%d.%d", &at[0], &at[1], &at[2]); err != nil {
					t.Errorf("%s: %v", module, err)
				}
			}
		}
		if slices.Compare(at[:], floor[:]) < 0 {
			t.Errorf("%s is at %v, below %v", module, at, floor)
		}
	}
}
