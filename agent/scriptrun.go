package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// scriptRun is one run of a script: how it goes, and how it ended.
type scriptRun struct {
	scriptItem
	a     *agent
	dir   string
	start time.Time

	exit     int
	timedOut bool
	out      streams
	result   []byte
	bmc      []byte // what it found of a BMC
}

func (a *agent) newRun(s scriptItem) *scriptRun {
	r := &scriptRun{scriptItem: s, a: a, start: time.Now()}
	// What was printed before a reboot comes first.
	r.out.combined.Write(clipBytes(s.earlier[""]))
	r.out.stdout.Write(clipBytes(s.earlier[".out"]))
	r.out.errs.Write(clipBytes(s.earlier[".err"]))
	return r
}

func clipBytes(b []byte) []byte { return b[:min(len(b), maxStream)] }

// good tells whether a script passed: by what it wrote of itself, else by its exit status.
func (r *scriptRun) good() bool {
	var own struct {
		Status string `yaml:"status"`
	}
	if yaml.Unmarshal(r.result, &own) == nil && own.Status != "" {
		return own.Status != "failed" && own.Status != "timedout"
	}
	return r.exit == 0
}

// streams collects what a script prints: each stream by itself, and both as they came; and copies it to the files that the script was
// told of.
type streams struct {
	mu                     sync.Mutex // guards the buffers
	combined, stdout, errs bytes.Buffer
	files                  map[*bytes.Buffer]*os.File
}

type stream struct {
	s   *streams
	own *bytes.Buffer
}

func (w stream) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for _, to := range []*bytes.Buffer{w.own, &w.s.combined} {
		part := b[:min(len(b), max(maxStream-to.Len(), 0))]
		to.Write(part)
		if f := w.s.files[to]; f != nil {
			_, _ = f.Write(part) // the files are a convenience
		}
	}
	return len(b), nil
}

func (s *streams) stderr() io.Writer { return stream{s, &s.errs} }
func (s *streams) output() io.Writer { return stream{s, &s.stdout} }

// take copies the buffers, under their names as files of a signal.
func (s *streams) take(name string) map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string][]byte{name: bytes.Clone(s.combined.Bytes()), name + ".out": bytes.Clone(s.stdout.Bytes()), name + ".err": bytes.Clone(s.errs.Bytes())}
}

func (s *streams) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.combined.Len()
}

// signal says what state the script is in.
func (r *scriptRun) signal(ctx context.Context, status string) error {
	return r.a.md.Signal(ctx, Signal{Status: status, Name: r.Name, ScriptResultID: r.ScriptResultID, ScriptVersionID: r.ScriptVersionID})
}

// cannot ends a run that has not begun.
func (r *scriptRun) cannot(err error) {
	r.exit = exitCannot
	fmt.Fprintln(r.out.stderr(), err)
}

// whole prepares, runs and reports a script. An error means that nobody could be told.
func (r *scriptRun) whole(ctx context.Context) error {
	ok, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	if ok {
		if err := r.signal(ctx, "WORKING"); err != nil {
			return err
		}
		if err := r.run(ctx); err != nil {
			return err
		}
	}
	return r.report(ctx)
}

// prepare installs what the script needs. ok is false when that failed: the run is then over, but for its report.
func (r *scriptRun) prepare(ctx context.Context) (ok bool, err error) {
	r.a.rep.Logf("script %s", r.Name)
	if r.dir, err = os.MkdirTemp("", "ingot-script."); err != nil {
		return false, err
	}
	if r.hardwareTest() != nil || len(r.Packages) == 0 {
		return true, nil
	}
	if err := r.signal(ctx, "INSTALLING"); err != nil {
		return false, err
	}
	if err := r.packages(ctx); err != nil {
		r.exit = 1
		fmt.Fprintln(r.out.stderr(), err)
		return false, nil
	}
	return true, nil
}

// report tells the region how the run ended.
func (r *scriptRun) report(ctx context.Context) error {
	if r.dir != "" {
		defer os.RemoveAll(r.dir)
	}

	end := Signal{Status: "WORKING", Name: r.Name, ScriptResultID: r.ScriptResultID, ScriptVersionID: r.ScriptVersionID, ExitStatus: &r.exit,
		Runtime: time.Since(r.start), Files: r.out.take(r.Name)}
	if r.timedOut {
		end.Status = "TIMEDOUT"
	}
	if len(r.result) > 0 {
		end.Files[r.Name+".yaml"] = r.result
	}
	if len(r.bmc) > 0 {
		var found map[string]any
		if yaml.Unmarshal(r.bmc, &found) == nil {
			end.PowerParameters = map[string]string{}
			for k, v := range found {
				if k == "power_type" {
					end.PowerType = fmt.Sprint(v)
				} else if v != nil {
					end.PowerParameters[k] = fmt.Sprint(v)
				}
			}
		}
	}
	r.a.rep.Logf("script %s: exit status %d", r.Name, r.exit)
	return r.a.md.Signal(ctx, end)
}

// run runs the script, or the agent's own test of that name, and shows the region now and then what it has printed.
func (r *scriptRun) run(ctx context.Context) error {
	values, limit, err := r.a.values(r.scriptItem)
	if err != nil {
		r.cannot(err)
		return nil
	}
	sctx, stop := context.WithCancel(ctx)
	shown := make(chan struct{})
	go func() { defer close(shown); r.show(sctx) }()
	if test := r.hardwareTest(); test != nil {
		r.runTest(ctx, test, values, limit)
	} else {
		r.exec(ctx, values, limit)
	}
	stop()
	<-shown
	return nil
}

// showEvery is how often a running script's output goes to the region: often enough that little is lost when a script reboots the
// machine.
const showEvery = 5 * time.Second

func (r *scriptRun) show(ctx context.Context) {
	t := time.NewTicker(showEvery)
	defer t.Stop()
	last := r.out.size()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		n := r.out.size()
		if n == last {
			continue
		}
		last = n
		err := r.a.md.Signal(ctx, Signal{Status: "WORKING", Name: r.Name, ScriptResultID: r.ScriptResultID, ScriptVersionID: r.ScriptVersionID,
			Files: r.out.take(r.Name), Tries: 1})
		if err != nil && ctx.Err() == nil {
			r.a.rep.Logf("script %s: its output so far could not be sent: %v", r.Name, err)
		}
	}
}

// exec runs a script's text in a folder of its own.
func (r *scriptRun) exec(ctx context.Context, values map[string]map[string]string, limit time.Duration) {
	at := func(name string) string { return filepath.Join(r.dir, name) }
	if err := os.MkdirAll(at("download"), 0o755); err != nil {
		r.cannot(err)
		return
	}
	file := at("script")
	if err := os.WriteFile(file, r.body, 0o700); err != nil {
		r.cannot(err)
		return
	}
	r.out.files = map[*bytes.Buffer]*os.File{}
	for name, b := range map[string]*bytes.Buffer{"combined": &r.out.combined, "stdout": &r.out.stdout, "stderr": &r.out.errs} {
		f, err := os.Create(at(name))
		if err != nil {
			r.cannot(err)
			return
		}
		defer f.Close()
		r.out.files[b] = f
	}
	started := "False"
	if r.HasStarted {
		started = "True"
	}
	env := []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"MAAS_BASE_URL=" + r.a.rack(), "MAAS_RESOURCES_FILE=" + at("resources.json"), "MAAS_MACHINE_EXTRA_FILE=" + r.a.extra(machineExtra),
		"MAAS_STORAGE_CONFIG_FILE=" + r.a.extra(storageExtra), "OUTPUT_COMBINED_PATH=" + at("combined"), "OUTPUT_STDOUT_PATH=" + at("stdout"),
		"OUTPUT_STDERR_PATH=" + at("stderr"), "RESULT_PATH=" + at("result.yaml"), "BMC_CONFIG_PATH=" + at("bmc.yaml"), "DOWNLOAD_PATH=" + at("download"),
		"RUNTIME=" + strconv.Itoa(int(limit.Seconds())), "HAS_STARTED=" + started}
	if inv, err := Inventory(r.a.Root); err == nil {
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
	args := arguments(r.scriptItem, values)
	var err error
	for try := 0; ; try++ {
		cmd := exec.CommandContext(run, file, args...)
		cmd.Dir, cmd.Env = r.dir, env
		cmd.Stdout, cmd.Stderr = r.out.output(), r.out.stderr()
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
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it ended; somebody else held its output open
		r.exit = 0
	case errors.Is(run.Err(), context.DeadlineExceeded):
		r.exit, r.timedOut = exitTimeout, true
		fmt.Fprintf(r.out.stderr(), "stopped after %v\n", limit)
	case errors.As(err, &exit):
		if r.exit = exit.ExitCode(); r.exit < 0 {
			r.exit = 1
			fmt.Fprintln(r.out.stderr(), err)
		}
	case errors.Is(err, os.ErrNotExist):
		r.cannot(fmt.Errorf("this environment has no %s, which the script's first line names: write the script for /bin/sh, or run it in the full environment", interpreter(r.body)))
	default:
		r.cannot(err)
	}
	r.result, r.bmc = readSmall(at("result.yaml")), readSmall(at("bmc.yaml"))
}

// interpreter is what a script's first line names.
func interpreter(body []byte) string {
	line, _, _ := bytes.Cut(body, []byte("\n"))
	w := strings.Fields(strings.TrimPrefix(printable(clip(string(line), 200)), "#!"))
	if len(w) == 0 {
		return "interpreter"
	}
	return w[0]
}

// readSmall reads a file that a script may have written; what cannot be read was not.
func readSmall(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxStream))
	return b
}

// The files by which scripts add to the inventory.
const (
	machineExtra = "machine-extra.json"
	storageExtra = "storage-config.json"
)

func (a *agent) extra(name string) string { return filepath.Join(a.Root, name) }

// inventory is what the machine is made of, with what scripts have added to it.
func (a *agent) inventory() (map[string]any, error) {
	inv, err := Inventory(a.Root)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(inv)
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	for key, name := range map[string]string{"storage-extra": storageExtra, "machine-extra": machineExtra} {
		b := readSmall(a.extra(name))
		if len(b) == 0 {
			continue
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			a.rep.Logf("%s, which a script wrote, is not JSON: %v", name, err)
			continue
		}
		doc[key] = v
	}
	return doc, nil
}
