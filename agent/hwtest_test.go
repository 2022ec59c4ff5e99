package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newTestRun() (*testRun, *bytes.Buffer) {
	var b bytes.Buffer
	return &testRun{out: &b, values: map[string]map[string]string{}, results: map[string]any{}}, &b
}

func TestMemoryTest(t *testing.T) {
	r, out := newTestRun()
	if err := testMemory(t.Context(), r, 5<<20+4096, false); err != nil || r.results["errors"] != int64(0) || r.results["tested_mib"] != int64(5) || r.results["passes"] != 1 {
		t.Errorf("%v %v %s", err, r.results, out)
	}
	// A word that changes between writing and reading is found, wherever it is.
	mem := make([]byte, 3<<20)
	for _, at := range []int{0, 1<<20 + 8, len(mem) - 8} {
		if bad, first, err := memoryPass(t.Context(), mem, 0x5555555555555555, at > 0, func() { mem[at] ^= 0x10 }); err != nil || bad != 1 || first != int64(at) {
			t.Errorf("at %d: %d wrong, first at %d, %v", at, bad, first, err)
		}
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int64{"MemTotal: 9 kB\nMemAvailable:    1048576 kB\n": 768 << 20, "MemAvailable: 100 kB\n": 0, "": 0} {
		if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := testableMemory(system{root}); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d %v", text, got, err)
		}
	}
}

func TestCPUTest(t *testing.T) {
	r, _ := newTestRun()
	r.limit = 100 * time.Millisecond
	if status, err := r.run(t.Context(), cpuTest); status != "passed" || err != nil || r.results["wrong"] != int64(0) || r.results["rounds"] == int64(0) {
		t.Errorf("%s %v %v", status, err, r.results)
	}
	if burn() != burn() {
		t.Error("the same work gives different results")
	}
	r.limit = time.Millisecond
	if status, _ := r.run(t.Context(), func(ctx context.Context, _ *testRun) error { <-ctx.Done(); return ctx.Err() }); status != "timedout" {
		t.Error(status)
	}
	if status, _ := r.run(t.Context(), func(context.Context, *testRun) error { return errSkip{"no"} }); status != "skipped" {
		t.Error(status)
	}
}

func TestConnectivity(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(500)
		}
	}))
	defer srv.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	for list, want := range map[string]string{srv.URL: "", srv.URL + ", " + srv.URL + "/x": "", srv.URL + "/bad": "it answers 500", closed.URL: "cannot be reached", srv.URL + "," + closed.URL: "cannot be reached",
		"gopher://x/": "scheme gopher"} {
		r, out := newTestRun()
		r.values["url"] = map[string]string{"input": list}
		if err := internetTest(t.Context(), r); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\n%s", list, err, out)
		}
	}
	r, _ := newTestRun()
	for rack, ok := range map[string]bool{srv.URL: true, closed.URL: false, "": false} {
		if r.rack = rack; (rackTest(t.Context(), r) == nil) != ok {
			t.Errorf("rack %q: %v", rack, !ok)
		}
	}
	if os.Geteuid() == 0 {
		for _, a := range []string{"127.0.0.1", "::1"} {
			if err := r.ping(t.Context(), netip.MustParseAddr(a)); err != nil && !strings.Contains(err.Error(), "assign requested address") {
				t.Errorf("ping %s: %v", a, err)
			}
		}
	}
}

func TestTimeTest(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stratum := make(chan byte, 4)
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			ans := make([]byte, 48)
			ans[0], ans[1] = 4<<3|4, <-stratum
			at := uint32(time.Now().Add(time.Hour).Unix() + 2208988800)
			binary.BigEndian.PutUint32(ans[32:], at)
			binary.BigEndian.PutUint32(ans[40:], at)
			_, _ = c.WriteTo(ans, from)
		}
	}()
	r, _ := newTestRun()
	stratum <- 3
	if err := r.askTime(t.Context(), c.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	if ms, ok := r.results["offset_ms"].(int64); !ok || ms < 3590_000 || ms > 3610_000 {
		t.Errorf("offset %v", r.results)
	}
	stratum <- 16
	if err := r.askTime(t.Context(), c.LocalAddr().String()); err == nil || !strings.Contains(err.Error(), "not synchronised") {
		t.Errorf("a server without the time: %v", err)
	}
}

func TestHardwareTestCommand(t *testing.T) {
	result := filepath.Join(t.TempDir(), "result.yaml")
	t.Setenv("RESULT_PATH", result)
	var out bytes.Buffer
	if code := HardwareTest(t.Context(), []string{"stress-ng-cpu-short", "--runtime=1"}, &out); code != 0 {
		t.Errorf("%d %s", code, &out)
	}
	if b, err := os.ReadFile(result); err != nil || !strings.Contains(string(b), "status: passed") {
		t.Errorf("%s %v", b, err)
	}
	for _, args := range [][]string{nil, {"rm"}, {"ntp", "x"}, {"stress-ng-cpu-short", "--runtime=-1"}} {
		if code := HardwareTest(t.Context(), args, &out); code != exitCannot {
			t.Errorf("%v: %d", args, code)
		}
	}
}
