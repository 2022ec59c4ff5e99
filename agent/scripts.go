package agent

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
)

// The bounds of what scripts print and of the archive that they come in.
const (
	maxStream   = 1 << 20
	maxScripts  = 1000
	maxRounds   = 10 // of fetching scripts again after some have run
	maxAtOnce   = 32 // scripts
	exitCannot  = 2
	exitTimeout = 124
)

// The values of a script's "parallel".
const (
	parallelNo       = 0
	parallelInstance = 1 // runs of the same script, beside one another
	parallelAny      = 2
)

// netplanFile is where the archive has the machine's modelled network.
const netplanFile = "../config/netplan.yaml"

// scriptItem is an entry of index.json.
type scriptItem struct {
	Name            string                     `json:"name"`
	Path            string                     `json:"path"`
	ScriptResultID  int64                      `json:"script_result_id"`
	ScriptVersionID int64                      `json:"script_version_id"`
	TimeoutSeconds  float64                    `json:"timeout_seconds"`
	Parallel        int                        `json:"parallel"`
	HardwareType    int                        `json:"hardware_type"`
	Parameters      map[string]scriptParameter `json:"parameters"`
	Packages        map[string]json.RawMessage `json:"packages"`
	ApplyNetwork    bool                       `json:"apply_configured_networking"`
	HasStarted      bool                       `json:"has_started"`
	HasFinished     bool                       `json:"has_finished"`
	Default         bool                       `json:"default"`

	body []byte
	// earlier is what a run before a reboot printed: combined, .out and .err.
	earlier map[string][]byte
}

// aboutDevices tells whether a run is for a disk or an interface.
func (s scriptItem) aboutDevices() bool {
	for _, p := range s.Parameters {
		if p.Type == "storage" || p.Type == "interface" {
			return true
		}
	}
	return false
}

type scriptParameter struct {
	Type           string          `json:"type"`
	Value          json.RawMessage `json:"value"`
	ArgumentFormat string          `json:"argument_format"`
}

// scriptSet is what waits for this machine in one group.
type scriptSet struct {
	items   []scriptItem
	netplan map[string]any // the network for scripts that want it applied
}

// scripts fetches the scripts of a group that wait for this machine, in the order in which they run.
func (a *agent) scripts(ctx context.Context, group string) (scriptSet, error) {
	b, err := a.client.do(ctx, request{method: "GET", url: a.md.Base + "2012-03-01/maas-scripts", creds: &a.md.Creds})
	if err != nil || len(b) == 0 {
		return scriptSet{}, err
	}
	return readScripts(b, group)
}

// readScripts takes the archive apart. Its names are only looked up, never made paths of.
func readScripts(b []byte, group string) (out scriptSet, err error) {
	var index struct {
		Groups map[string][]scriptItem `json:"1.0"`
	}
	bodies := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(b))
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n > maxScripts*6 {
			return out, fmt.Errorf("maas-scripts: not an archive that can be read: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(r, maxBody))
		if err != nil {
			return out, fmt.Errorf("maas-scripts: %w", err)
		}
		bodies[h.Name] = data
	}
	if err := json.Unmarshal(bodies["index.json"], &index); err != nil {
		return out, fmt.Errorf("maas-scripts: index.json: %w", err)
	}
	for _, s := range index.Groups[group] {
		body, ok := bodies[s.Path]
		if s.HasFinished {
			continue
		}
		if !ok {
			return out, fmt.Errorf("maas-scripts: %q is not in the archive", s.Path)
		}
		s.body = body
		if s.HasStarted {
			base := "out/" + s.Name + "." + strconv.FormatInt(s.ScriptResultID, 10)
			s.earlier = map[string][]byte{"": bodies[base], ".out": bodies[base+".out"], ".err": bodies[base+".err"]}
		}
		out.items = append(out.items, s)
	}
	if len(out.items) > maxScripts {
		return out, errors.New("maas-scripts: too many scripts")
	}
	if doc := bodies[netplanFile]; len(doc) > 0 {
		if err := yaml.Unmarshal(doc, &out.netplan); err != nil {
			return out, fmt.Errorf("maas-scripts: netplan.yaml: %w", err)
		}
	}
	rank := func(s scriptItem) int { return (s.HardwareType + 5) % 6 } // the machine as a whole comes last
	slices.SortStableFunc(out.items, func(x, y scriptItem) int { return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.Name, y.Name)) })
	return out, nil
}

// batches are the scripts that run beside one another, one batch after the other: those that bear no company first, each by itself;
// then all runs of one script together, script by script; then the rest. What changes the network comes behind what does not.
func batches(items []scriptItem) [][]scriptItem {
	var out [][]scriptItem
	for _, s := range items {
		if s.Parallel != parallelInstance && s.Parallel != parallelAny {
			out = append(out, []scriptItem{s})
		}
	}
	var names []string
	byName := map[string][]scriptItem{}
	var rest, moving []scriptItem
	for _, s := range items {
		switch {
		case s.Parallel == parallelInstance:
			if byName[s.Name] == nil {
				names = append(names, s.Name)
			}
			byName[s.Name] = append(byName[s.Name], s)
		case s.Parallel == parallelAny && s.ApplyNetwork:
			moving = append(moving, s)
		case s.Parallel == parallelAny:
			rest = append(rest, s)
		}
	}
	for _, n := range names {
		out = append(out, byName[n])
	}
	for _, b := range [][]scriptItem{rest, moving} {
		if len(b) > 0 {
			out = append(out, b)
		}
	}
	return out
}

// runGroup runs the scripts of a group until none is left. Scripts that the agent stands in for go to native, which says whether it did.
func (a *agent) runGroup(ctx context.Context, group string, native func(name string) (bool, error)) error {
	announced := false
	for range maxRounds {
		set, err := a.scripts(ctx, group)
		if err != nil {
			return inStep("scripts", err)
		}
		if len(set.items) == 0 {
			return nil
		}
		if group == "testing_scripts" && !announced {
			announced = true
			if err := a.md.Signal(ctx, Signal{Status: "TESTING"}); err != nil {
				return inStep("scripts", err)
			}
		}
		var items []scriptItem
		for _, s := range set.items {
			done, err := native(s.Name)
			if err != nil {
				return err
			}
			if !done {
				items = append(items, s)
			}
		}
		var failed []string
		for _, batch := range batches(items) {
			names, err := a.runBatch(ctx, batch, set.netplan)
			if err != nil {
				return err
			}
			failed = append(failed, names...)
		}
		if len(failed) > 0 {
			return fmt.Errorf("%d scripts failed: %s", len(failed), strings.Join(failed, ", "))
		}
	}
	return fmt.Errorf("the server has scripts for this machine again and again")
}

// atOnce runs do for each run, a bounded number beside one another.
func atOnce(runs []*scriptRun, do func(*scriptRun) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(runs))
	slots := make(chan struct{}, maxAtOnce)
	for i, r := range runs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = inStep(r.Name, do(r))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// runBatch runs scripts beside one another and returns the names of those that failed.
func (a *agent) runBatch(ctx context.Context, batch []scriptItem, netplan map[string]any) (failed []string, err error) {
	var all, plain, moving []*scriptRun
	for _, s := range batch {
		r := a.newRun(s)
		if all = append(all, r); s.ApplyNetwork {
			moving = append(moving, r)
		} else {
			plain = append(plain, r)
		}
	}
	if err := atOnce(plain, func(r *scriptRun) error { return r.whole(ctx) }); err != nil {
		return nil, err
	}
	if err := a.withNetwork(ctx, moving, netplan); err != nil {
		return nil, err
	}
	for _, r := range all {
		if !r.good() {
			failed = append(failed, r.Name)
		}
	}
	return failed, nil
}

// withNetwork runs scripts while the machine's modelled network stands. They are reported when the network of before is back: nothing
// says that the region is reached by both.
func (a *agent) withNetwork(ctx context.Context, runs []*scriptRun, netplan map[string]any) error {
	var ready []*scriptRun
	for _, r := range runs {
		ok, err := r.prepare(ctx)
		if err == nil && !ok { // its packages are missing
			err = r.report(ctx)
		} else if err == nil {
			ready = append(ready, r)
			err = r.signal(ctx, "APPLYING_NETCONF")
		}
		if err != nil {
			return inStep(r.Name, err)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	a.rep.Logf("applying the configured network")
	undo, err := a.networkUp(ctx, netplan)
	a.client.HTTP.CloseIdleConnections() // they are between addresses of before
	if err == nil {
		sctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		for _, r := range ready {
			if err = r.signal(sctx, "WORKING"); err != nil {
				err = fmt.Errorf("it was applied, and the region is out of reach in it: %w", err)
				break
			}
		}
		cancel()
	}
	if err == nil {
		err = atOnce(ready, func(r *scriptRun) error { return r.run(ctx) })
	} else {
		for _, r := range ready {
			r.exit = 1
			fmt.Fprintf(r.out.stderr(), "The configured network could not be used: %v\n", err)
		}
		err = nil
	}
	if undo != nil {
		if uerr := undo(); uerr != nil {
			a.rep.Logf("the network of before could not be restored wholly: %v", uerr)
		}
		a.client.HTTP.CloseIdleConnections()
	}
	if err != nil {
		return err
	}
	for _, r := range ready {
		if err := r.report(ctx); err != nil {
			return inStep(r.Name, err)
		}
	}
	return nil
}

// networkUp applies the modelled network and returns what undoes it.
func (a *agent) networkUp(ctx context.Context, doc map[string]any) (func() error, error) {
	if a.ApplyNetwork != nil {
		return a.ApplyNetwork(ctx, doc)
	}
	n, err := applyNetwork(ctx, doc, a.rep.Logf)
	if n == nil {
		return nil, err
	}
	return n.restore, err
}

// test runs the test scripts that wait for this machine.
func (a *agent) test(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			a.fail(ctx, "test", err)
		}
	}()
	if err := a.runGroup(ctx, "testing_scripts", func(string) (bool, error) { return false, nil }); err != nil {
		return err
	}
	return inStep("report", a.md.Signal(ctx, Signal{Status: "OK"}))
}

// rack is scheme and host of where the machine's server is.
func (a *agent) rack() string {
	base, _, _ := strings.Cut(a.md.Base, "/MAAS/")
	return base
}

// values are what a script's parameters are on this machine, by parameter: {path}, {name} and so on, or {input}.
func (a *agent) values(s scriptItem) (out map[string]map[string]string, limit time.Duration, err error) {
	limit = time.Duration(s.TimeoutSeconds * float64(time.Second))
	out = map[string]map[string]string{}
	for name, p := range s.Parameters {
		v := map[string]string{}
		switch p.Type {
		case "storage":
			v, err = a.disk(p.Value)
		case "interface":
			v, err = a.nic(p.Value)
		default:
			v["input"] = plainValue(p.Value)
			if n, perr := strconv.ParseFloat(v["input"], 64); p.Type == "runtime" && perr == nil && n > 0 {
				limit = time.Duration(n * float64(time.Second))
			}
		}
		if err != nil {
			return nil, 0, err
		}
		out[name] = v
	}
	return out, limit, nil
}

// arguments makes a script's arguments of its parameters.
func arguments(s scriptItem, values map[string]map[string]string) (args []string) {
	names := make([]string, 0, len(s.Parameters))
	for n := range s.Parameters {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, name := range names {
		p := s.Parameters[name]
		format := p.ArgumentFormat
		switch p.Type {
		case "storage":
			format = cmp.Or(format, "--storage={path}")
		case "interface":
			format = cmp.Or(format, "--interface={name}")
		case "boolean":
			if string(p.Value) != "true" {
				continue
			}
			format = cmp.Or(format, "--"+name)
		default:
			format = cmp.Or(format, "--"+name+"={input}")
		}
		// The words are those of the format: what a value has in it makes no new ones.
		for _, word := range strings.Fields(format) {
			args = append(args, fill(word, values[name]))
		}
	}
	return args
}

// fill replaces {name} by the value of that name, once through: braces in values mean nothing.
func fill(word string, values map[string]string) string {
	pairs := make([]string, 0, 2*len(values))
	for k, v := range values {
		pairs = append(pairs, "{"+k+"}", v)
	}
	return strings.NewReplacer(pairs...).Replace(word)
}

func plainValue(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// disk finds the disk that a parameter means: by model and serial number, else by its path.
func (a *agent) disk(raw json.RawMessage) (map[string]string, error) {
	var want struct {
		Name   string `json:"name"`
		Model  string `json:"model"`
		Serial string `json:"serial"`
		Path   string `json:"id_path"`
	}
	if json.Unmarshal(raw, &want) != nil {
		return nil, errors.New("no storage device was found for this script")
	}
	disks, err := a.disks()
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		if want.Serial != "" && d.Serial == want.Serial && (want.Model == "" || d.Model == want.Model) ||
			want.Serial == "" && (want.Path != "" && want.Path == d.Path || d.ByID != "" && want.Path == "/dev/disk/by-id/"+d.ByID || d.Name == want.Name) {
			return map[string]string{"name": d.Name, "path": "/dev/" + d.Name, "model": d.Model, "serial": d.Serial, "input": "/dev/" + d.Name}, nil
		}
	}
	return nil, fmt.Errorf("the disk %s (model %q, serial %q) is not there", want.Name, want.Model, want.Serial)
}

// nic finds the interface that a parameter means: by its MAC address, and by its name where several have that (a bond has one of its
// members', a VLAN interface its parent's).
func (a *agent) nic(raw json.RawMessage) (map[string]string, error) {
	var want struct {
		Name    string `json:"name"`
		MAC     string `json:"mac_address"`
		Vendor  string `json:"vendor"`
		Product string `json:"product"`
	}
	if json.Unmarshal(raw, &want) != nil {
		return nil, errors.New("no interface was found for this script")
	}
	mac, err := net.ParseMAC(want.MAC)
	if err != nil {
		return nil, fmt.Errorf("%q is not a MAC address", want.MAC)
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	found := ""
	for _, i := range all {
		if bytes.Equal(i.HardwareAddr, mac) && (found == "" || i.Name == want.Name) {
			found = i.Name
		}
	}
	if found == "" {
		return nil, fmt.Errorf("the interface %s (%s) is not there", want.Name, want.MAC)
	}
	return map[string]string{"name": found, "mac": want.MAC, "vendor": want.Vendor, "product": want.Product, "input": found}, nil
}
