package agent

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
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
	files := map[string]string{"index.json": index, "testing/a": "A", "testing/b": "B", "testing/c": "C", "../config/netplan.yaml": "no"}
	items, err := readScripts(tarOf(t, files, "index.json", "testing/a", "testing/b", "testing/c", "../config/netplan.yaml"), "testing_scripts")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range items {
		got += s.Name + string(s.body) + " "
	}
	if got != "aA cC bB " { // CPU, storage, and the machine as a whole last
		t.Errorf("order: %s", got)
	}
	if items, err := readScripts(tarOf(t, files, "index.json"), "commissioning_scripts"); err != nil || len(items) != 0 {
		t.Errorf("a group that is not there: %v %v", items, err)
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
	run := func(text string, s scriptItem) *scriptOutcome {
		t.Helper()
		s.body = []byte(text)
		return a.execScript(context.Background(), s, t.TempDir())
	}
	o := run("#!/bin/sh\necho out; echo err >&2; echo \"$MAAS_BASE_URL $HAS_STARTED $1 $2\"; echo 'status: degraded' > \"$RESULT_PATH\"; exit 3\n", scriptItem{Parameters: map[string]scriptParameter{
		"storage": {Type: "storage", Value: json.RawMessage(`{"name":"x","serial":"s1","model":"M"}`)}, "n": {Type: "string", Value: json.RawMessage(`"a b"`), ArgumentFormat: "-n={input}"}}})
	if o.exit != 3 || o.out.stdout.String() != "out\nhttp://rack:5248 False -n=a b --storage=/dev/vda\n" || o.out.errs.String() != "err\n" || string(o.result) != "status: degraded\n" || !o.good() {
		t.Errorf("%d %q %q %q", o.exit, o.out.stdout.String(), o.out.errs.String(), o.result)
	}
	if c := o.out.combined.String(); !strings.Contains(c, "out\n") || !strings.Contains(c, "err\n") {
		t.Errorf("combined: %q", c)
	}
	start := time.Now()
	if o := run("#!/bin/sh\nsleep 60 & sleep 60\n", scriptItem{TimeoutSeconds: 0.3}); o.exit != exitTimeout || !o.timedOut || o.good() {
		t.Errorf("timed out: %+v", o.exit)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the timeout took %v", d)
	}
	if o := run("#!/no/such/interpreter\n", scriptItem{}); o.exit != exitCannot || o.out.errs.Len() == 0 {
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
		"--url=http://x/?a=": {Parameters: map[string]scriptParameter{"url": p("url", `"http://x/?a="`, "")}},
	} {
		args, limit, err := a.arguments(s)
		if err != nil || strings.Join(args, " ") != want {
			t.Errorf("%q: %q %v", want, args, err)
		}
		if _, ok := s.Parameters["runtime"]; ok && limit != 90*time.Second {
			t.Errorf("limit %v", limit)
		}
	}
	for _, s := range []scriptParameter{p("storage", `{"name":"zzz"}`, ""), p("storage", `7`, ""), p("interface", `{"mac_address":"02:00:00:aa:bb:cc"}`, ""), p("interface", `{"mac_address":"x"}`, "")} {
		if _, _, err := a.arguments(scriptItem{Parameters: map[string]scriptParameter{"x": s}}); err == nil {
			t.Errorf("%s %s was found", s.Type, s.Value)
		}
	}
}
