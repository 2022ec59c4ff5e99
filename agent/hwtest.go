package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hardwareTest is a test that the agent carries out itself, in place of the script of that name: one that needs no package, and so runs
// in every environment. It prints what it does, and adds to results what it measured. An error fails the test.
type hardwareTest func(ctx context.Context, t *testRun) error

// testRun is what a test knows of its run.
type testRun struct {
	out     io.Writer
	values  map[string]map[string]string // of its parameters
	limit   time.Duration                // 0: none
	rack    string                       // scheme, host and port of the rack
	servers []string                     // of the time
	results map[string]any
}

func (t *testRun) logf(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// errSkip ends a test that says nothing about this machine.
type errSkip struct{ why string }

func (e errSkip) Error() string { return e.why }

// hardwareTests are the agent's own, by the names that MAAS's tests have: clients choose tests by name.
var hardwareTests = map[string]hardwareTest{
	"memtester":                    func(ctx context.Context, t *testRun) error { return memoryTest(ctx, t, false) },
	"stress-ng-memory-short":       func(ctx context.Context, t *testRun) error { return memoryTest(ctx, t, true) },
	"stress-ng-memory-long":        func(ctx context.Context, t *testRun) error { return memoryTest(ctx, t, true) },
	"stress-ng-cpu-short":          cpuTest,
	"stress-ng-cpu-long":           cpuTest,
	"ntp":                          ntpTest,
	"internet-connectivity":        internetTest,
	"gateway-connectivity":         gatewayTest,
	"rack-controller-connectivity": rackTest,
}

// hardwareTest is the agent's own test that stands for the script; nil when the script is what it says.
func (r *scriptRun) hardwareTest() hardwareTest {
	if !r.Default {
		return nil
	}
	return hardwareTests[r.Name]
}

// runTest runs a test of the agent's own as if it were the script.
func (r *scriptRun) runTest(ctx context.Context, test hardwareTest, values map[string]map[string]string, limit time.Duration) {
	t := &testRun{out: r.out.output(), values: values, limit: limit, rack: r.a.rack(), results: map[string]any{}}
	if r.Name == "ntp" {
		t.servers = r.a.timeServers(ctx)
	}
	status, err := t.run(ctx, test)
	switch {
	case status == "timedout":
		r.exit, r.timedOut = exitTimeout, true
	case err != nil && status != "skipped":
		r.exit = 1
	}
	if err != nil {
		fmt.Fprintln(r.out.stderr(), err)
	}
	r.result = t.document(status)
}

// timeServers are those that the region's vendor-data names for this machine.
func (a *agent) timeServers(ctx context.Context) []string {
	b, err := a.client.do(ctx, request{method: "GET", url: a.md.Base + "2012-03-01/meta-data/vendor-data", creds: &a.md.Creds, tries: 2})
	if err != nil {
		a.rep.Logf("vendor-data: %v", err)
		return nil
	}
	var outer struct {
		CloudInit string `yaml:"cloud-init"`
	}
	var inner struct {
		NTP struct {
			Servers []string `yaml:"servers"`
			Pools   []string `yaml:"pools"`
		} `yaml:"ntp"`
	}
	if yaml.Unmarshal(b, &outer) != nil || yaml.Unmarshal([]byte(outer.CloudInit), &inner) != nil {
		return nil
	}
	return append(inner.NTP.Servers, inner.NTP.Pools...)
}

// run runs a test within its time and says how it went: passed, failed, skipped or timedout.
func (t *testRun) run(ctx context.Context, test hardwareTest) (status string, err error) {
	run := ctx
	if t.limit > 0 {
		var cancel context.CancelFunc
		run, cancel = context.WithTimeout(ctx, t.limit)
		defer cancel()
	}
	err = test(run, t)
	var skip errSkip
	switch {
	case err == nil:
		return "passed", nil
	case errors.As(err, &skip):
		return "skipped", err
	case errors.Is(err, context.DeadlineExceeded) && run.Err() != nil && ctx.Err() == nil:
		return "timedout", fmt.Errorf("stopped after %v", t.limit)
	}
	return "failed", err
}

// document is what a script would have written to RESULT_PATH.
func (t *testRun) document(status string) []byte {
	doc := map[string]any{"status": status}
	if len(t.results) > 0 {
		doc["results"] = t.results
	}
	b, err := yaml.Marshal(doc)
	if err != nil {
		return nil
	}
	return b
}

// HardwareTest runs one of the agent's own tests from the command line, as the scripts of that name do where another runner runs them:
// args are the script's arguments, --name=value. It returns the exit status.
func HardwareTest(ctx context.Context, args []string, out io.Writer) int {
	if len(args) == 0 || hardwareTests[args[0]] == nil {
		names := make([]string, 0, len(hardwareTests))
		for n := range hardwareTests {
			names = append(names, n)
		}
		slices.Sort(names)
		fmt.Fprintf(out, "name a test: %s\n", strings.Join(names, ", "))
		return exitCannot
	}
	t := &testRun{out: out, rack: os.Getenv("MAAS_BASE_URL"), values: map[string]map[string]string{}, results: map[string]any{}}
	for _, a := range args[1:] {
		k, v, ok := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		if !ok {
			fmt.Fprintf(out, "%q is not of the form --name=value\n", a)
			return exitCannot
		}
		t.values[k] = map[string]string{"input": v, "name": v, "path": v}
		switch k {
		case "server":
			t.servers = append(t.servers, v)
		case "runtime":
			d, err := time.ParseDuration(v + "s")
			if err != nil || d <= 0 {
				fmt.Fprintf(out, "the runtime %q is not a number of seconds\n", v)
				return exitCannot
			}
			t.limit = d
		}
	}
	status, err := t.run(ctx, hardwareTests[args[0]])
	if err != nil {
		fmt.Fprintln(out, err)
	}
	if p := os.Getenv("RESULT_PATH"); p != "" {
		if werr := os.WriteFile(p, t.document(status), 0o644); werr != nil {
			fmt.Fprintln(out, werr)
			return exitCannot
		}
	}
	switch status {
	case "failed":
		return 1
	case "timedout":
		return exitTimeout
	}
	return 0
}
