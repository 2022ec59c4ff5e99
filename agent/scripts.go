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
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// The bounds of what scripts print and of the archive that they come in.
const (
	maxStream   = 1 << 20
	maxScripts  = 1000
	maxRounds   = 10 // of fetching scripts again after some have run
	exitCannot  = 2
	exitTimeout = 124
)

// scriptItem is an entry of index.json.
type scriptItem struct {
	Name            string                     `json:"name"`
	Path            string                     `json:"path"`
	ScriptResultID  int64                      `json:"script_result_id"`
	ScriptVersionID int64                      `json:"script_version_id"`
	TimeoutSeconds  float64                    `json:"timeout_seconds"`
	HardwareType    int                        `json:"hardware_type"`
	Parameters      map[string]scriptParameter `json:"parameters"`
	Packages        map[string]json.RawMessage `json:"packages"`
	ApplyNetwork    bool                       `json:"apply_configured_networking"`
	HasStarted      bool                       `json:"has_started"`
	HasFinished     bool                       `json:"has_finished"`

	body []byte
}

type scriptParameter struct {
	Type           string          `json:"type"`
	Value          json.RawMessage `json:"value"`
	ArgumentFormat string          `json:"argument_format"`
}

// scripts fetches the scripts of a group that wait for this machine, in the order in which they run.
func (a *agent) scripts(ctx context.Context, group string) ([]scriptItem, error) {
	b, err := a.client.do(ctx, request{method: "GET", url: a.md.Base + "2012-03-01/maas-scripts", creds: &a.md.Creds})
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return readScripts(b, group)
}

// readScripts takes the archive apart. Its names are only looked up, never made paths of.
func readScripts(b []byte, group string) ([]scriptItem, error) {
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
			return nil, fmt.Errorf("maas-scripts: not an archive that can be read: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(r, maxBody))
		if err != nil {
			return nil, fmt.Errorf("maas-scripts: %w", err)
		}
		bodies[h.Name] = data
	}
	if err := json.Unmarshal(bodies["index.json"], &index); err != nil {
		return nil, fmt.Errorf("maas-scripts: index.json: %w", err)
	}
	var out []scriptItem
	for _, s := range index.Groups[group] {
		body, ok := bodies[s.Path]
		if s.HasFinished {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("maas-scripts: %q is not in the archive", s.Path)
		}
		s.body = body
		out = append(out, s)
	}
	if len(out) > maxScripts {
		return nil, errors.New("maas-scripts: too many scripts")
	}
	rank := func(s scriptItem) int { return (s.HardwareType + 5) % 6 } // the machine as a whole comes last
	slices.SortStableFunc(out, func(x, y scriptItem) int { return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.Name, y.Name)) })
	return out, nil
}

// runGroup runs the scripts of a group until none is left. Scripts that the agent stands in for go to native, which says whether it did.
func (a *agent) runGroup(ctx context.Context, group string, native func(name string) (bool, error)) error {
	announced := false
	for range maxRounds {
		items, err := a.scripts(ctx, group)
		if err != nil {
			return inStep("scripts", err)
		}
		if len(items) == 0 {
			return nil
		}
		if group == "testing_scripts" && !announced {
			announced = true
			if err := a.md.Signal(ctx, Signal{Status: "TESTING"}); err != nil {
				return inStep("scripts", err)
			}
		}
		failed := 0
		for _, s := range items {
			done, err := native(s.Name)
			if err != nil {
				return err
			}
			if done {
				continue
			}
			ok, err := a.runScript(ctx, s)
			if err != nil {
				return inStep(s.Name, err)
			}
			if !ok {
				failed++
			}
		}
		if failed > 0 {
			return fmt.Errorf("%d scripts failed to run", failed)
		}
	}
	return fmt.Errorf("the server has scripts for this machine again and again")
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

// scriptOutcome is how one script ended.
type scriptOutcome struct {
	exit     int
	timedOut bool
	out      streams
	result   []byte
}

// good tells whether a script passed: by what it wrote of itself, else by its exit status.
func (o *scriptOutcome) good() bool {
	var own struct {
		Status string `yaml:"status"`
	}
	if yaml.Unmarshal(o.result, &own) == nil && own.Status != "" {
		return own.Status != "failed" && own.Status != "timedout"
	}
	return o.exit == 0
}

// streams collects what a script prints: each stream by itself, and both as they came.
type streams struct {
	mu                     sync.Mutex // guards the buffers
	combined, stdout, errs bytes.Buffer
}

type stream struct {
	s   *streams
	own *bytes.Buffer
}

func (w stream) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for _, to := range []*bytes.Buffer{w.own, &w.s.combined} {
		to.Write(b[:min(len(b), max(maxStream-to.Len(), 0))])
	}
	return len(b), nil
}

func (s *streams) stderr() io.Writer { return stream{s, &s.errs} }

// runScript runs one script and reports how it ended. ok is false when it failed; an error means that nobody could be told.
func (a *agent) runScript(ctx context.Context, s scriptItem) (ok bool, err error) {
	sig := Signal{Status: "WORKING", Name: s.Name, ScriptResultID: s.ScriptResultID, ScriptVersionID: s.ScriptVersionID}
	a.rep.Logf("script %s", s.Name)
	start := time.Now()
	report := func(o *scriptOutcome) (bool, error) {
		end := sig
		if end.ExitStatus, end.Runtime = &o.exit, time.Since(start); o.timedOut {
			end.Status = "TIMEDOUT"
		}
		end.Files = map[string][]byte{s.Name: o.out.combined.Bytes(), s.Name + ".out": o.out.stdout.Bytes(), s.Name + ".err": o.out.errs.Bytes()}
		if len(o.result) > 0 {
			end.Files[s.Name+".yaml"] = o.result
		}
		a.rep.Logf("script %s: exit status %d", s.Name, o.exit)
		return o.good(), a.md.Signal(ctx, end)
	}
	if s.ApplyNetwork {
		sig.Status = "APPLYING_NETCONF"
		if err := a.md.Signal(ctx, sig); err != nil {
			return false, err
		}
		sig.Status = "WORKING"
		o := &scriptOutcome{exit: 1}
		fmt.Fprintln(o.out.stderr(), "This agent does not apply the machine's configured network for a script.")
		return report(o)
	}
	dir, err := os.MkdirTemp("", "ingot-script.")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if len(s.Packages) > 0 {
		sig.Status = "INSTALLING"
		if err := a.md.Signal(ctx, sig); err != nil {
			return false, err
		}
		sig.Status = "WORKING"
		o := &scriptOutcome{exit: 1}
		if err := a.packages(ctx, s, filepath.Join(dir, "download"), o); err != nil {
			fmt.Fprintln(o.out.stderr(), err)
			return report(o)
		}
	}
	if err := a.md.Signal(ctx, sig); err != nil {
		return false, err
	}
	return report(a.execScript(ctx, s, dir))
}

// execScript runs a script's text in a folder of its own.
func (a *agent) execScript(ctx context.Context, s scriptItem, dir string) *scriptOutcome {
	o := &scriptOutcome{exit: exitCannot}
	cannot := func(err error) *scriptOutcome {
		fmt.Fprintln(o.out.stderr(), err)
		return o
	}
	args, limit, err := a.arguments(s)
	if err != nil {
		return cannot(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "download"), 0o755); err != nil {
		return cannot(err)
	}
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, s.body, 0o700); err != nil {
		return cannot(err)
	}
	started := "False"
	if s.HasStarted {
		started = "True"
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	env := []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"MAAS_BASE_URL=" + a.rack(), "MAAS_RESOURCES_FILE=" + at("resources.json"), "MAAS_MACHINE_EXTRA_FILE=/machine-extra.json",
		"MAAS_STORAGE_CONFIG_FILE=/storage-config.json", "OUTPUT_COMBINED_PATH=" + at("combined"), "OUTPUT_STDOUT_PATH=" + at("stdout"),
		"OUTPUT_STDERR_PATH=" + at("stderr"), "RESULT_PATH=" + at("result.yaml"), "BMC_CONFIG_PATH=" + at("bmc.yaml"), "DOWNLOAD_PATH=" + at("download"),
		"RUNTIME=" + strconv.Itoa(int(limit.Seconds())), "HAS_STARTED=" + started}
	if inv, err := Inventory(a.Root); err == nil {
		if b, err := json.Marshal(inv); err == nil {
			_ = os.WriteFile(at("resources.json"), b, 0o600) // a script that wants it finds it missing
		}
	}
	run := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		run, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	for try := 0; ; try++ {
		cmd := exec.CommandContext(run, file, args...)
		cmd.Dir, cmd.Env = dir, env
		cmd.Stdout, cmd.Stderr = stream{&o.out, &o.out.stdout}, o.out.stderr()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = 5 * time.Second
		err = cmd.Run()
		if !errors.Is(err, syscall.ETXTBSY) || try == 5 { // another program was started while the file was open for writing
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		o.exit = 0
	case errors.Is(run.Err(), context.DeadlineExceeded):
		o.exit, o.timedOut = exitTimeout, true
		fmt.Fprintf(o.out.stderr(), "stopped after %v\n", limit)
	case errors.As(err, &exit):
		if o.exit = exit.ExitCode(); o.exit < 0 {
			o.exit = 1
		}
	default:
		return cannot(err)
	}
	if f, err := os.Open(at("result.yaml")); err == nil {
		o.result, _ = io.ReadAll(io.LimitReader(f, maxStream)) // what cannot be read was not written
		f.Close()
	}
	return o
}

// rack is scheme and host of where the machine's server is.
func (a *agent) rack() string {
	base, _, _ := strings.Cut(a.md.Base, "/MAAS/")
	return base
}

// arguments makes a script's arguments of its parameters, and says how long it may run.
func (a *agent) arguments(s scriptItem) (args []string, limit time.Duration, err error) {
	limit = time.Duration(s.TimeoutSeconds * float64(time.Second))
	names := make([]string, 0, len(s.Parameters))
	for n := range s.Parameters {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, name := range names {
		p := s.Parameters[name]
		format := p.ArgumentFormat
		values := map[string]string{}
		switch p.Type {
		case "storage":
			format = cmp.Or(format, "--storage={path}")
			if values, err = a.disk(p.Value); err != nil {
				return nil, 0, err
			}
		case "interface":
			format = cmp.Or(format, "--interface={name}")
			if values, err = a.nic(p.Value); err != nil {
				return nil, 0, err
			}
		case "boolean":
			if string(p.Value) != "true" {
				continue
			}
			format, values["input"] = cmp.Or(format, "--"+name), "true"
		default:
			format = cmp.Or(format, "--"+name+"={input}")
			values["input"] = plainValue(p.Value)
			if n, err := strconv.ParseFloat(values["input"], 64); p.Type == "runtime" && err == nil && n > 0 {
				limit = time.Duration(n * float64(time.Second))
			}
		}
		for _, word := range strings.Fields(format) {
			for k, v := range values {
				word = strings.ReplaceAll(word, "{"+k+"}", v)
			}
			args = append(args, word)
		}
	}
	return args, limit, nil
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

// nic finds the interface that a parameter means, by its MAC address.
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
	for _, i := range all {
		if bytes.Equal(i.HardwareAddr, mac) {
			return map[string]string{"name": i.Name, "mac": want.MAC, "vendor": want.Vendor, "product": want.Product, "input": i.Name}, nil
		}
	}
	return nil, fmt.Errorf("the interface %s (%s) is not there", want.Name, want.MAC)
}

// packages installs what a script needs, with the tools of the environment.
func (a *agent) packages(ctx context.Context, s scriptItem, download string, o *scriptOutcome) error {
	cmd := commander{log: func(line string) { fmt.Fprintln(stream{&o.out, &o.out.stdout}, line) }}
	for _, kind := range []string{"apt", "snap", "url"} {
		raw, ok := s.Packages[kind]
		if !ok {
			continue
		}
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			list = []json.RawMessage{raw}
		}
		if kind == "apt" {
			if err := cmd.run(ctx, "apt-get", "-qq", "update"); err != nil {
				return err
			}
		}
		for _, p := range list {
			if err := a.pkg(ctx, cmd, kind, p, download); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *agent) pkg(ctx context.Context, cmd commander, kind string, raw json.RawMessage, download string) error {
	name := plainValue(raw)
	switch kind {
	case "apt":
		return cmd.run(ctx, "apt-get", "-qy", "--no-install-recommends", "install", "--", name)
	case "snap":
		var p struct {
			Name    string `json:"name"`
			Channel string `json:"channel"`
			Mode    string `json:"mode"`
		}
		if json.Unmarshal(raw, &p) != nil {
			p.Name = name
		}
		args := []string{"install"}
		if p.Channel != "" {
			args = append(args, "--channel="+p.Channel)
		}
		if flag := map[string]string{"classic": "--classic", "dev": "--devmode", "jail": "--jailmode"}[p.Mode]; flag != "" {
			args = append(args, flag)
		}
		return cmd.run(ctx, "snap", append(args, "--", p.Name)...)
	}
	if _, err := checkURL(name); err != nil {
		return err
	}
	if err := os.MkdirAll(download, 0o755); err != nil {
		return err
	}
	base := path.Base(strings.SplitN(name, "?", 2)[0])
	if base == "." || base == "/" || base == ".." {
		base = "file"
	}
	file := filepath.Join(download, base)
	if err := a.save(ctx, name, file); err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(base, ".deb"):
		return cmd.run(ctx, "dpkg", "-i", file)
	case strings.HasSuffix(base, ".snap"):
		return cmd.run(ctx, "snap", "install", "--dangerous", file)
	case strings.Contains(base, ".tar"), strings.HasSuffix(base, ".tgz"):
		return cmd.run(ctx, "tar", "-xf", file, "-C", download)
	}
	return nil
}

func (a *agent) save(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := a.client.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
