package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/pelletier/go-toml/v2"
)

const (
	envPrefix  = "BALAI"
	configFile = "config.toml"
)

// settings are what config.toml says: keys are the names of flags, alone for every command or below the name of one.
type settings struct {
	path string
	all  map[string]any
}

var _ kong.Resolver = (*settings)(nil)

// readSettings reads the TOML file that the arguments and the environment lead to. A missing file says nothing, unless
// it was named.
func readSettings(args []string) (*settings, error) {
	path, named := early(args, "config"), true
	if path == "" {
		named = false
		dir := early(args, "data")
		if dir == "" {
			dir = defaultConfigDir()
		}
		path = filepath.Join(dir, configFile)
	}
	s := &settings{path: path}
	data, err := os.ReadFile(path)
	if err != nil {
		if named || !errors.Is(err, fs.ErrNotExist) {
			return nil, usage("settings: %w", err)
		}
		return s, nil
	}
	if err := toml.Unmarshal(data, &s.all); err != nil {
		return nil, usage("settings: %s: %w", path, err)
	}
	return s, nil
}

// early finds a global flag before the command line is parsed, since it says where the settings are.
func early(args []string, name string) string {
	found := os.Getenv(envPrefix + "_" + strings.ToUpper(name))
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "--"+name && i+1 < len(args) {
			found = args[i+1]
		} else if v, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			found = v
		}
	}
	return found
}

// Validate refuses a key that is no flag: a misspelt setting must not be passed over in silence.
func (s *settings) Validate(app *kong.Application) error {
	known := map[string]map[string]bool{}
	flagsBelow(app.Node, "", known)
	for key, value := range s.all {
		table, isTable := value.(map[string]any)
		if !isTable {
			if !known[""][dashed(key)] {
				return usage("settings: %s: unknown key %q", s.path, key)
			}
			continue
		}
		for inner := range table {
			if !known[key][dashed(inner)] {
				return usage("settings: %s: unknown key %q in [%s]", s.path, inner, key)
			}
		}
	}
	return nil
}

// flagsBelow collects the flags by the name of their top command, and all of them under "".
func flagsBelow(n *kong.Node, top string, known map[string]map[string]bool) {
	for _, f := range n.Flags {
		if len(f.Envs) == 0 {
			continue // not a setting
		}
		for _, t := range []string{top, ""} {
			if known[t] == nil {
				known[t] = map[string]bool{}
			}
			known[t][f.Name] = true
		}
	}
	for _, c := range n.Children {
		name := top
		if name == "" {
			name = c.Name
		}
		flagsBelow(c, name, known)
	}
}

// Resolve gives a flag's value in the file, unless the environment has one.
func (s *settings) Resolve(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if len(flag.Envs) == 0 {
		return nil, nil // not a setting
	}
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	for n := parent.Node(); n != nil; n = n.Parent {
		if table, ok := s.all[n.Name].(map[string]any); ok {
			if v := lookup(table, flag.Name); v != nil {
				return plain(v)
			}
		}
	}
	if v := lookup(s.all, flag.Name); v != nil {
		return plain(v)
	}
	return nil, nil
}

func lookup(table map[string]any, flag string) any {
	for key, v := range table {
		if _, isTable := v.(map[string]any); !isTable && dashed(key) == flag {
			return v
		}
	}
	return nil
}

func dashed(key string) string { return strings.ReplaceAll(key, "_", "-") }

// plain is a TOML value as a flag takes it: a list is joined by commas.
func plain(v any) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return v, nil
	}
	words := make([]string, len(list))
	for i, e := range list {
		if words[i], ok = e.(string); !ok {
			return nil, errors.New("a list of texts is wanted")
		}
	}
	return strings.Join(words, ","), nil
}

// dataDir is the folder of the person's daemon.
func (g *globals) dataDir() (string, error) {
	return pick(g.Data, "")
}

// pick is dir, or the system's folder for program data with below in it.
func pick(dir, below string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	base := defaultDataDir()
	if base == "" {
		return "", usage("this system names no home folder: say --data DIR")
	}
	return filepath.Join(base, below), nil
}

// defaultDataDir follows the XDG base directory specification, and what takes its place on Windows and macOS.
func defaultDataDir() string {
	switch runtime.GOOS {
	case "windows":
		return inFolder(os.Getenv("LocalAppData"), "Balai")
	case "darwin":
		return inHome("Library", "Application Support", "Balai")
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "balai")
	}
	return inHome(".local", "share", "balai")
}

func defaultConfigDir() string {
	switch runtime.GOOS {
	case "windows":
		return inFolder(os.Getenv("AppData"), "Balai")
	case "darwin":
		return defaultDataDir()
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "balai")
	}
	return inHome(".config", "balai")
}

func inFolder(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

func inHome(parts ...string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(append([]string{home}, parts...)...)
}
