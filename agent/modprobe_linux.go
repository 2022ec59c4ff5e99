package agent

import (
	"fmt"
	"strings"
)

// lightModules is where the light image keeps its modules.
const lightModules = "/lib/modules/ingot"

// Modprobe is what the kernel calls in the light environment, as /sbin/modprobe, when it wants a module that nobody has loaded yet: a
// file system at its first mount, a RAID level, a kind of network interface. Names may be aliases (fs-xfs, md-level-1).
func Modprobe(args []string) error {
	m, err := openModules(lightModules, func(string, ...any) {})
	if err != nil {
		return err
	}
	for _, a := range args {
		if a == "" || a[0] == '-' { // -q, --
			continue
		}
		if !m.ask(a) {
			return fmt.Errorf("module %s not found in %s", a, lightModules)
		}
	}
	return nil
}

// ask loads the module of that name, or those that go by that alias. It says whether there is one.
func (m *moduleSet) ask(name string) bool {
	if n := strings.ReplaceAll(name, "-", "_"); m.deps[n] != nil {
		m.load(n)
		return true
	}
	found := false
	for _, x := range m.alias[name[0]] {
		if globMatch(x[0], name) {
			m.load(x[1])
			found = true
		}
	}
	return found
}
