package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// ScriptOutcome is how a script ends on a lab machine.
type ScriptOutcome struct {
	Exit     int
	Output   string // what it prints
	Result   string // what it writes to RESULT_PATH
	TimedOut bool
}

// outcomes are those that tests have set, by the script's name.
type outcomes struct {
	mu sync.Mutex
	m  map[string]ScriptOutcome
}

// SetScript says how a script is to end from now on.
func (m *Machine) SetScript(name string, o ScriptOutcome) {
	m.scriptEnds.mu.Lock()
	defer m.scriptEnds.mu.Unlock()
	if m.scriptEnds.m == nil {
		m.scriptEnds.m = map[string]ScriptOutcome{}
	}
	m.scriptEnds.m[name] = o
}

// outcome is how a script ends: as set, else by the machine's configuration.
func (m *Machine) outcome(name string) ScriptOutcome {
	m.scriptEnds.mu.Lock()
	defer m.scriptEnds.mu.Unlock()
	if o, ok := m.scriptEnds.m[name]; ok {
		return o
	}
	return ScriptOutcome{Exit: m.cfg.ScriptExit[name], Output: "this lab machine executes no code; exit status as configured\n"}
}

// fields name a run in signals.
func (s scriptItem) fields() map[string]string {
	out := map[string]string{"name": s.Name}
	if s.ScriptResultID != 0 {
		out["script_result_id"] = fmt.Sprint(s.ScriptResultID)
	}
	if s.ScriptVersionID != 0 {
		out["script_version_id"] = fmt.Sprint(s.ScriptVersionID)
	}
	return out
}

// beginScript says what a runner says before a script runs: that it installs packages, applies the network, and begins.
func (m *Machine) beginScript(ctx context.Context, c *metadata, s scriptItem) error {
	if s.ScriptResultID == 0 || s.Name == inventoryScript || s.Name == "maas-kernel-cmdline" || s.Name == "30-maas-01-bmc-config" {
		return nil // the agent itself stands in for these, and reports when it is done
	}
	var states []string
	if len(s.Packages) > 0 {
		states = append(states, "INSTALLING")
	}
	if s.ApplyNetwork {
		if s.netplan == nil {
			return fmt.Errorf("maas-scripts: %s wants the configured network, and the archive has no ../config/netplan.yaml", s.Name)
		}
		states = append(states, "APPLYING_NETCONF")
	}
	for _, state := range append(states, "WORKING") {
		if err := c.signal(ctx, state, "", s.fields(), nil); err != nil {
			return err
		}
	}
	return nil
}

// needs is what a script item says of what it needs.
type needs struct {
	Packages     map[string]json.RawMessage `json:"packages"`
	ApplyNetwork bool                       `json:"apply_configured_networking"`

	netplan []byte // the archive's
}
