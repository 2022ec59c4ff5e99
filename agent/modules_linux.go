package agent

import (
	"bufio"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleSet loads the modules that the light image carries in /lib/modules/ingot: "list" (always NAME or hw NAME), "modules.dep" and
// "modules.alias" as depmod writes them.
type moduleSet struct {
	dir    string
	deps   map[string][]string // name → files, the module itself first
	always []string
	alias  map[byte][][2]string // by first byte of the pattern: pattern, name
	loaded map[string]bool
	logf   func(string, ...any)
}

func moduleName(file string) string {
	n := path.Base(file)
	if i := strings.Index(n, ".ko"); i >= 0 {
		n = n[:i]
	}
	return strings.ReplaceAll(n, "-", "_")
}

func openModules(dir string, logf func(string, ...any)) (*moduleSet, error) {
	m := &moduleSet{dir: dir, deps: map[string][]string{}, alias: map[byte][][2]string{}, loaded: map[string]bool{}, logf: logf}
	lines := func(name string, f func([]string)) error {
		h, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer h.Close()
		s := bufio.NewScanner(h)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			if w := strings.Fields(s.Text()); len(w) > 0 && w[0][0] != '#' {
				f(w)
			}
		}
		return s.Err()
	}
	if err := lines("modules.dep", func(w []string) {
		file := strings.TrimSuffix(w[0], ":")
		m.deps[moduleName(file)] = append([]string{file}, w[1:]...)
	}); err != nil {
		return nil, err
	}
	if err := lines("modules.alias", func(w []string) {
		if len(w) == 3 && w[0] == "alias" {
			m.alias[w[1][0]] = append(m.alias[w[1][0]], [2]string{w[1], w[2]})
		}
	}); err != nil {
		return nil, err
	}
	err := lines("list", func(w []string) {
		if len(w) == 2 && w[0] == "always" {
			m.always = append(m.always, w[1])
		}
	})
	return m, err
}

// load inserts a module after those it needs. What cannot be loaded is logged and skipped: the machine may do without.
func (m *moduleSet) load(name string) {
	name = strings.ReplaceAll(name, "-", "_")
	files := m.deps[name]
	if m.loaded[name] || files == nil {
		return
	}
	for i := len(files) - 1; i >= 0; i-- {
		n := moduleName(files[i])
		if m.loaded[n] {
			continue
		}
		m.loaded[n] = true
		f, err := os.Open(filepath.Join(m.dir, files[i]))
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
			f.Close()
		}
		if err != nil && err != unix.EEXIST && err != unix.ENODEV {
			m.logf("module %s: %v", n, err)
		}
	}
}

// coldplug loads what the present hardware asks for, until nothing new appears (a bus driver brings devices of its own).
func (m *moduleSet) coldplug(sys string) {
	for round := 0; round < 5; round++ {
		want := map[string]bool{}
		_ = filepath.WalkDir(sys, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "modalias" {
				return nil
			}
			b, err := os.ReadFile(p)
			a := strings.TrimSpace(string(b))
			if err != nil || a == "" {
				return nil
			}
			for _, x := range m.alias[a[0]] {
				if !m.loaded[strings.ReplaceAll(x[1], "-", "_")] && globMatch(x[0], a) {
					want[x[1]] = true
				}
			}
			return nil
		})
		if len(want) == 0 {
			return
		}
		for n := range want {
			m.load(n)
			m.loaded[strings.ReplaceAll(n, "-", "_")] = true
		}
	}
}

// globMatch is fnmatch as far as module aliases use it: * and ? and [set].
func globMatch(pattern, s string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x01"), strings.ReplaceAll(s, "/", "\x01"))
	return err == nil && ok
}
