package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func tarOf(t *testing.T, files map[string]string, order ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range order {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(files[name]))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadScripts(t *testing.T) {
	index := `{"1.0": {"testing_scripts": [
		{"name": "b", "path": "testing/b", "script_result_id": 2, "hardware_type": 0},
		{"name": "c", "path": "testing/c", "script_result_id": 3, "hardware_type": 3},
		{"name": "a", "path": "testing/a", "script_result_id": 1, "hardware_type": 0, "has_finished": true},
		{"name": "a", "path": "testing/a", "script_result_id": 4, "hardware_type": 1}]}}`
	files := map[string]string{"index.json": index, "testing/a": "A", "testing/b": "B", "testing/c": "C", "../config/netplan.yaml": "version: 2\n", "out/d.5": "both", "out/d.5.out": "one", "testing/d": "D"}
	set, err := readScripts(tarOf(t, files, "index.json", "testing/a", "testing/b", "testing/c", "../config/netplan.yaml"), "testing_scripts")
	if err != nil {
		t.Fatal(err)
	}
	if set.netplan["version"] != 2 {
		t.Errorf("the network: %v", set.netplan)
	}
	got := ""
	for _, s := range set.items {
		got += s.Name + string(s.body) + " "
	}
	if got != "aA cC bB " { // CPU, storage, and the machine as a whole last
		t.Errorf("order: %s", got)
	}
	if set, err := readScripts(tarOf(t, files, "index.json"), "commissioning_scripts"); err != nil || len(set.items) != 0 {
		t.Errorf("a group that is not there: %v %v", set.items, err)
	}
	files["index.json"] = `{"1.0": {"testing_scripts": [{"name": "d", "path": "testing/d", "script_result_id": 5, "has_started": true}]}}`
	set, err = readScripts(tarOf(t, files, "index.json", "testing/d", "out/d.5", "out/d.5.out"), "testing_scripts")
	if err != nil || len(set.items) != 1 || string(set.items[0].earlier[""]) != "both" || string(set.items[0].earlier[".out"]) != "one" {
		t.Errorf("what came before a reboot: %+v %v", set.items, err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "garbage": []byte(strings.Repeat("x", 2000)), "no index": tarOf(t, files, "testing/a"),
		"no script": tarOf(t, files, "index.json", "testing/a")} {
		if _, err := readScripts(b, "testing_scripts"); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func scriptAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{Config: Config{Root: t.TempDir(), Disks: func() ([]Disk, error) {
		return []Disk{{Name: "vda", Serial: "s1", Model: "M"}, {Name: "vdb", Path: "/dev/vdb"}}, nil
	}}, rep: NewReporter(io.Discard)}
	a.md = &Metadata{Base: "http://rack:5248/MAAS/metadata/"}
	return a
}

func TestExecScript(t *testing.T) {
	a := scriptAgent(t)
	run := func(text string, s scriptItem) *scriptRun {
		t.Helper()
		s.body = []byte(text)
		r := a.newRun(s)
		r.dir = t.TempDir()
		values, limit, err := a.values(s)
		if err != nil {
			r.cannot(err)
			return r
		}
		r.exec(context.Background(), values, limit)
		return r
	}
	o := run("#!/bin/sh\necho out; echo err >&2; echo \"$MAAS_BASE_URL $HAS_STARTED $1 $2\"; echo 'status: degraded' > \"$RESULT_PATH\"; exit 3\n", scriptItem{Parameters: map[string]scriptParameter{
		"storage": {Type: "storage", Value: json.RawMessage(`{"name":"x","serial":"s1","model":"M"}`)}, "n": {Type: "string", Value: json.RawMessage(`"a b"`), ArgumentFormat: "-n={input}"}}})
	if o.exit != 3 || o.out.stdout.String() != "out\nhttp://rack:5248 False -n=a b --storage=/dev/vda\n" || o.out.errs.String() != "err\n" || string(o.result) != "status: degraded\n" || !o.good() {
		t.Errorf("%d %q %q %q", o.exit, o.out.stdout.String(), o.out.errs.String(), o.result)
	}
	if c := o.out.combined.String(); !strings.Contains(c, "out\n") || !strings.Contains(c, "err\n") {
		t.Errorf("combined: %q", c)
	}
	// What it has printed so far is in the files that it is told of, and what a run before a reboot printed comes first.
	o = run("#!/bin/sh\necho one; while ! [ -s \"$OUTPUT_STDOUT_PATH\" ]; do sleep 0.1; done; cat \"$OUTPUT_STDOUT_PATH\" >&2; echo $HAS_STARTED $RUNTIME; echo 'power_type: ipmi' > $BMC_CONFIG_PATH\n",
		scriptItem{HasStarted: true, TimeoutSeconds: 60, earlier: map[string][]byte{"": []byte("zero\n"), ".out": []byte("zero\n")}})
	if o.out.stdout.String() != "zero\none\nTrue 60\n" || o.out.errs.String() != "one\n" || string(o.bmc) != "power_type: ipmi\n" {
		t.Errorf("resumed: %q %q %q", o.out.stdout.String(), o.out.errs.String(), o.bmc)
	}
	start := time.Now()
	if o := run("#!/bin/sh\nsleep 60 & sleep 60\n", scriptItem{TimeoutSeconds: 0.3}); o.exit != exitTimeout || !o.timedOut || o.good() {
		t.Errorf("timed out: %+v", o.exit)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the timeout took %v", d)
	}
	if o := run("#!/no/such/interpreter -x\n", scriptItem{}); o.exit != exitCannot || !strings.Contains(o.out.errs.String(), "this environment has no /no/such/interpreter,") {
		t.Errorf("without interpreter: %d %q", o.exit, o.out.errs.String())
	}
	if o := run("#!/bin/sh\n", scriptItem{Parameters: map[string]scriptParameter{"storage": {Type: "storage", Value: json.RawMessage(`"all"`)}}}); o.exit != exitCannot {
		t.Errorf("without its disk: %d", o.exit)
	}
	if o := run("#!/bin/sh\nhead -c 3000000 /dev/zero\n", scriptItem{}); o.exit != 0 || o.out.stdout.Len() != maxStream {
		t.Errorf("a long output: %d, %d bytes", o.exit, o.out.stdout.Len())
	}
	if o := run("#!/bin/sh\necho 'status: failed' > \"$RESULT_PATH\"\n", scriptItem{}); o.exit != 0 || o.good() {
		t.Error("a script that says that it failed passed")
	}
	if o := run("#!/bin/sh\necho '{\"layout\": {}}' > \"$MAAS_STORAGE_CONFIG_FILE\"; echo '{' > \"$MAAS_MACHINE_EXTRA_FILE\"\n", scriptItem{}); o.exit != 0 {
		t.Errorf("extra: %q", o.out.errs.String())
	}
	for _, dir := range []string{"proc", "sys/class/net", "sys/block"} {
		if err := os.MkdirAll(filepath.Join(a.Root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := a.inventory()
	if extra, ok := doc["storage-extra"].(map[string]any); err != nil || !ok || extra["layout"] == nil || doc["machine-extra"] != nil {
		t.Errorf("what scripts add to the inventory: %v %v", doc["storage-extra"], err)
	}
}

// metadataServer takes signals and serves an archive once.
type metadataServer struct {
	*httptest.Server
	mu      sync.Mutex
	archive []byte
	signals []map[string]string
	down    func() bool
}

func newMetadataServer(t *testing.T, a *agent, archive []byte) *metadataServer {
	s := &metadataServer{archive: archive}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down != nil && s.down() {
			w.WriteHeader(404)
			return
		}
		if r.Method == http.MethodGet {
			_, _ = w.Write(s.archive)
			s.archive = nil
			return
		}
		if err := r.ParseMultipartForm(8 << 20); err != nil {
			t.Error(err)
			return
		}
		got := map[string]string{}
		for k := range r.MultipartForm.Value {
			got[k] = r.Form.Get(k)
		}
		for k, f := range r.MultipartForm.File {
			h, err := f[0].Open()
			if err != nil {
				t.Error(err)
				return
			}
			b, _ := io.ReadAll(h)
			got["file "+k] = string(b)
		}
		s.signals = append(s.signals, got)
		_, _ = io.WriteString(w, "OK")
	}))
	t.Cleanup(s.Close)
	a.client = NewClient(nil)
	a.md = &Metadata{Client: a.client, Base: s.URL + "/MAAS/metadata/"}
	return s
}

// ends are the last signals of each script, by its name.
func (s *metadataServer) ends() map[string]map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]map[string]string{}
	for _, g := range s.signals {
		if g["exit_status"] != "" {
			out[g["name"]] = g
		}
	}
	return out
}

// TestRunGroup runs what waits for a machine: alone, beside itself, beside others, and with the modelled network.
func TestRunGroup(t *testing.T) {
	a := scriptAgent(t)
	meet := t.TempDir() // two runs of a script wait for each other here
	both := "#!/bin/sh\ntouch " + meet + "/$1; for i in $(seq 100); do [ $(ls " + meet + " | wc -l) = 2 ] && echo met && exit 0; sleep 0.1; done; exit 1\n"
	index := `{"1.0": {"testing_scripts": [
		{"name": "both", "path": "testing/both", "script_result_id": 1, "parallel": 1, "parameters": {"n": {"type": "string", "value": "x", "argument_format": "{input}"}}},
		{"name": "both", "path": "testing/both", "script_result_id": 2, "parallel": 1, "parameters": {"n": {"type": "string", "value": "y", "argument_format": "{input}"}}},
		{"name": "net", "path": "testing/net", "script_result_id": 3, "parallel": 2, "apply_configured_networking": true},
		{"name": "needs", "path": "testing/needs", "script_result_id": 4, "packages": {"snap": "none-such"}},
		{"name": "stress-ng-cpu-short", "path": "testing/needs", "script_result_id": 5, "default": true, "packages": {"apt": "stress-ng"}, "parameters": {"runtime": {"type": "runtime", "value": 1}}},
		{"name": "stress-ng-cpu-short2", "path": "testing/net", "script_result_id": 6, "timeout_seconds": 30}]}}`
	files := map[string]string{"index.json": index, "testing/both": both, "testing/net": "#!/bin/sh\ncat " + meet + "/state || echo none\n", "testing/needs": "#!/bin/sh\nexit 9\n",
		"../config/netplan.yaml": "network: {version: 2}\n"}
	s := newMetadataServer(t, a, tarOf(t, files, "index.json", "testing/both", "testing/net", "testing/needs", "../config/netplan.yaml"))
	applied := 0
	a.ApplyNetwork = func(_ context.Context, doc map[string]any) (func() error, error) {
		applied++
		if doc["network"] == nil {
			t.Errorf("network: %v", doc)
		}
		return func() error { return os.Remove(filepath.Join(meet, "state")) }, os.WriteFile(filepath.Join(meet, "state"), []byte("applied\n"), 0o600)
	}
	err := a.runGroup(t.Context(), "testing_scripts", func(string) (bool, error) { return false, nil })
	if err == nil || !strings.Contains(err.Error(), "1 scripts failed: needs") {
		t.Fatalf("%v", err)
	}
	ends := s.ends()
	for name, want := range map[string][2]string{"both": {"0", "met\n"}, "net": {"0", "applied\n"}, "needs": {"1", ""}, "stress-ng-cpu-short": {"0", ""}, "stress-ng-cpu-short2": {"0", "none\n"}} {
		if e := ends[name]; e["exit_status"] != want[0] || want[1] != "" && e["file "+name+".out"] != want[1] {
			t.Errorf("%s ended with %v", name, e)
		}
	}
	if e := ends["needs"]["file needs.err"]; !strings.Contains(e, "snap") {
		t.Errorf("a package that cannot be had: %q", e)
	}
	if e := ends["stress-ng-cpu-short"]; !strings.Contains(e["file stress-ng-cpu-short.yaml"], "wrong: 0") || !strings.Contains(e["file stress-ng-cpu-short.yaml"], "status: passed") {
		t.Errorf("the agent's own test: %v", e)
	}
	var states []string
	for _, g := range s.signals {
		if g["script_result_id"] == "3" {
			states = append(states, g["status"]+g["exit_status"])
		}
	}
	if strings.Join(states, " ") != "APPLYING_NETCONF WORKING WORKING0" || applied != 1 {
		t.Errorf("states of net: %v; applied %d times", states, applied)
	}
}

// TestNetworkOutOfReach: a modelled network in which the region cannot be reached is undone, and then the failure is reported.
func TestNetworkOutOfReach(t *testing.T) {
	a := scriptAgent(t)
	s := newMetadataServer(t, a, nil)
	up := false
	s.down = func() bool { return up }
	a.ApplyNetwork = func(context.Context, map[string]any) (func() error, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		up = true
		return func() error { s.mu.Lock(); defer s.mu.Unlock(); up = false; return nil }, nil
	}
	failed, err := a.runBatch(t.Context(), []scriptItem{{Name: "net", ScriptResultID: 1, ApplyNetwork: true, body: []byte("#!/bin/sh\n")}}, nil)
	if err != nil || len(failed) != 1 {
		t.Fatalf("%v failed, %v", failed, err)
	}
	if e := s.ends()["net"]; e["exit_status"] != "1" || !strings.Contains(e["file net.err"], "out of reach") {
		t.Errorf("%v", e)
	}
	if last := s.signals[len(s.signals)-2]; last["status"] != "APPLYING_NETCONF" { // the region takes the failure for one of the network
		t.Errorf("before its end it was in %v", last)
	}
}

func TestBatches(t *testing.T) {
	s := func(name string, parallel int, net bool) scriptItem {
		return scriptItem{Name: name, Parallel: parallel, ApplyNetwork: net}
	}
	got := ""
	for _, b := range batches([]scriptItem{s("i", 1, false), s("n", 2, true), s("a", 2, false), s("s", 0, false), s("j", 1, false), s("b", 2, false), s("i", 1, false), s("t", 0, true), s("odd", 7, false)}) {
		for _, x := range b {
			got += x.Name
		}
		got += " "
	}
	if got != "s t odd ii j ab n " {
		t.Error(got)
	}
}

func TestScriptArguments(t *testing.T) {
	a := scriptAgent(t)
	p := func(typ, value, format string) scriptParameter {
		return scriptParameter{Type: typ, Value: json.RawMessage(value), ArgumentFormat: format}
	}
	for want, s := range map[string]scriptItem{
		"":                   {},
		"--runtime=90":       {Parameters: map[string]scriptParameter{"runtime": p("runtime", "90", "")}},
		"--force":            {Parameters: map[string]scriptParameter{"force": p("boolean", "true", "")}},
		"-f x":               {Parameters: map[string]scriptParameter{"force": p("boolean", "true", "-f x"), "quiet": p("boolean", "false", "")}},
		"/dev/vdb --s=":      {Parameters: map[string]scriptParameter{"d": p("storage", `{"name":"vdb"}`, "{path} --s={serial}")}},
		"--x={path} {y}":     {Parameters: map[string]scriptParameter{"x": p("string", `"{path} {y}"`, "")}},
		"--url=http://x/?a=": {Parameters: map[string]scriptParameter{"url": p("url", `"http://x/?a="`, "")}},
	} {
		values, limit, err := a.values(s)
		if args := arguments(s, values); err != nil || strings.Join(args, " ") != want {
			t.Errorf("%q: %q %v", want, args, err)
		}
		if _, ok := s.Parameters["runtime"]; ok && limit != 90*time.Second {
			t.Errorf("limit %v", limit)
		}
	}
	for _, s := range []scriptParameter{p("storage", `{"name":"zzz"}`, ""), p("storage", `7`, ""), p("interface", `{"mac_address":"02:00:00:aa:bb:cc"}`, ""), p("interface", `{"mac_address":"x"}`, "")} {
		if _, _, err := a.values(scriptItem{Parameters: map[string]scriptParameter{"x": s}}); err == nil {
			t.Errorf("%s %s was found", s.Type, s.Value)
		}
	}
}
