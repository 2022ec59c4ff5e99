package bootsrv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
	"github.com/ingot-metal/ingot/provisioner/power"
)

var quiet = slog.New(slog.DiscardHandler)

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func TestHandlerTransport(t *testing.T) {
	gone := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Query", r.URL.RawQuery)
		w.WriteHeader(http.StatusAccepted)
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		fmt.Fprint(w, "first")
		<-r.Context().Done()
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("no") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "half"); panic("no") })
	mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/range", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	})
	c := &http.Client{Transport: HandlerTransport(mux)}
	res, err := c.Post("http://x/echo?a=b", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 202 || string(body) != "hello" || res.Header.Get("X-Query") != "a=b" {
		t.Errorf("%d %q %v %v", res.StatusCode, body, res.Header, err)
	}
	res, err = c.Get("http://x/stream")
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Errorf("%q %v", first, err)
	}
	res.Body.Close()
	<-gone // closing the body ends the handler
	if res, err := c.Get("http://x/panic"); err == nil {
		t.Errorf("a panic was answered with %d", res.StatusCode)
	}
	if res, err = c.Get("http://x/late"); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("an answer that broke off was taken for %q", body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://x/wait", nil)
	if _, err := c.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting: %v", err)
	}
	req, _ = http.NewRequest("GET", "http://x/range", nil)
	req.Header.Set("Range", "bytes=7-")
	if res, err = c.Do(req); err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 206 || string(body) != "789" || res.ContentLength != 3 {
		t.Errorf("range: %d %q %d", res.StatusCode, body, res.ContentLength)
	}
	if res, err = c.Head("http://x/range"); err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); len(body) != 0 || res.ContentLength != 10 {
		t.Errorf("head: %q %d", body, res.ContentLength)
	}
}

// blobs is a region that breaks off.
type blobs struct {
	mu     sync.Mutex
	data   map[string][]byte
	chunk  int // 0: whole
	opened int
	down   bool
	gate   chan struct{}
}

func (b *blobs) fetch(ctx context.Context, sha string, offset int64) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened++
	if b.gate != nil {
		b.mu.Unlock()
		<-b.gate
		b.mu.Lock()
	}
	if b.down {
		return nil, errors.New("down")
	}
	d, ok := b.data[sha]
	if !ok {
		return nil, &linkError{Status: 404}
	}
	d = d[offset:]
	if b.chunk > 0 && len(d) > b.chunk {
		d = d[:b.chunk]
	}
	return io.NopCloser(bytes.NewReader(d)), nil
}

func (b *blobs) add(data []byte) string {
	sum := sha256.Sum256(data)
	sha := hex.EncodeToString(sum[:])
	b.data[sha] = data
	return sha
}

func testCache(t *testing.T, dir string, limit int64, b *blobs) *cache {
	t.Helper()
	c, err := openCache(dir, limit, quiet)
	if err != nil {
		t.Fatal(err)
	}
	c.fetch = b.fetch
	c.size = func(sha string) (int64, bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		d, ok := b.data[sha]
		return int64(len(d)), ok
	}
	t.Cleanup(c.close)
	return c
}

func contents(t *testing.T, c *cache, sha string) string {
	t.Helper()
	f, err := c.Open(t.Context(), sha)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestCache(t *testing.T) {
	dir := t.TempDir()
	b := &blobs{data: map[string][]byte{}, chunk: 400}
	one := b.add(bytes.Repeat([]byte("1"), 1000))
	two := b.add(bytes.Repeat([]byte("2"), 1000))
	three := b.add(bytes.Repeat([]byte("3"), 1000))
	c := testCache(t, dir, 2500, b)
	if got := contents(t, c, one); got != strings.Repeat("1", 1000) {
		t.Errorf("content of %d bytes", len(got))
	}
	if b.opened != 3 {
		t.Errorf("%d requests for content that broke off twice", b.opened)
	}
	b.chunk = 0
	contents(t, c, two)
	contents(t, c, one) // two is the one that was not used for longest
	contents(t, c, three)
	if _, err := os.Stat(filepath.Join(dir, two)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the least recently used is still there: %v", err)
	}
	b.down = true
	contents(t, c, one)
	contents(t, c, three)
	c2 := testCache(t, dir, 2500, b)
	contents(t, c2, three) // after a restart, with the region gone
	if _, err := c2.Open(t.Context(), two); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("content that cannot be had now: %v", err)
	}
	for _, sha := range []string{"", "x", "../../etc/passwd", strings.Repeat("0", 64)} {
		if _, err := c2.Open(t.Context(), sha); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", sha, err)
		}
	}
}

func TestCacheVerifies(t *testing.T) {
	dir := t.TempDir()
	b := &blobs{data: map[string][]byte{}}
	sha := b.add([]byte("genuine"))
	b.data[sha] = []byte("forged!")
	c := testCache(t, dir, 1000, b)
	if f, err := c.Open(t.Context(), sha); err == nil {
		f.Close()
		t.Fatal("forged content was served")
	}
	b.mu.Lock()
	b.data[sha] = []byte("genuine")
	b.mu.Unlock()
	if got := contents(t, c, sha); got != "genuine" {
		t.Errorf("then %q", got)
	}
}

func TestCacheFetchesOnce(t *testing.T) {
	b := &blobs{data: map[string][]byte{}, gate: make(chan struct{})}
	sha := b.add([]byte("once"))
	c := testCache(t, t.TempDir(), 1000, b)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := c.Open(ctx, sha); first <- err }()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := contents(t, c, sha); got != "once" {
				t.Errorf("%q", got)
			}
		})
	}
	waitFor(t, "the fetch", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.opened == 1 })
	cancel() // whoever began the fetch goes away; the others still get it
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	close(b.gate)
	wg.Wait()
	if b.opened != 1 {
		t.Errorf("fetched %d times", b.opened)
	}
}

func TestCacheUsesTheRegionsStore(t *testing.T) {
	dir := t.TempDir()
	b := &blobs{data: map[string][]byte{}}
	sha := b.add([]byte("shared"))
	c := testCache(t, dir, 1000, b)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, []byte("shared"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.shared = func(string) (*os.File, error) { return os.Open(file) }
	if got := contents(t, c, sha); got != "shared" || b.opened != 0 {
		t.Errorf("%q after %d requests", got, b.opened)
	}
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var got []string
	down := true
	post := func(_ context.Context, raw json.RawMessage) error {
		mu.Lock()
		defer mu.Unlock()
		var r api.RackReports
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		if down {
			return errors.New("down")
		}
		for _, b := range r.Boots {
			if b.Kind == "poison" {
				return &linkError{Status: 400}
			}
			got = append(got, b.Path)
		}
		for _, l := range r.Leases {
			got = append(got, l.IP)
		}
		return nil
	}
	start := func() (*spool, func()) {
		s, err := openSpool(dir, quiet, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		s.post = post
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.run(ctx) }()
		return s, func() { cancel(); <-done }
	}
	s, stop := start()
	for i := range 700 {
		s.addBoot(api.BootStep{Kind: "kernel", Path: fmt.Sprint(i)})
	}
	waitFor(t, "the spooling", func() bool { l, _ := filepath.Glob(filepath.Join(dir, "*.json")); return len(l) >= 2 })
	s.addLease(api.LeaseReport{IP: "10.0.0.9"})
	stop() // the lease is written on the way out
	if s.empty() {
		t.Fatal("nothing waits")
	}
	if err := os.WriteFile(filepath.Join(dir, "9999999999999000.json"), []byte(`{"boots": [{"ki`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, stop = start()
	s.addBoot(api.BootStep{Kind: "poison"})
	time.Sleep(50 * time.Millisecond)
	s.addBoot(api.BootStep{Kind: "kernel", Path: "last"})
	mu.Lock()
	down = false
	mu.Unlock()
	waitFor(t, "the posting", s.empty)
	stop()
	if len(got) != 702 || got[0] != "0" || got[699] != "699" || got[700] != "10.0.0.9" || got[701] != "last" {
		t.Errorf("%d reports: %v … %v", len(got), got[:3], got[max(0, len(got)-4):])
	}
}

func host(id string, rev int64) api.SnapHost {
	return api.SnapHost{SystemID: id, Hostname: id, Arch: "amd64", Purpose: api.PurposeLocal, Revision: rev,
		MACs: []api.SnapMAC{{MAC: fmt.Sprintf("52:54:00:00:00:%02x", id[0])}}}
}

func TestSnapshotStore(t *testing.T) {
	dir := t.TempDir()
	var h view.Holder
	s := newSnapshotStore(dir, &h)
	whole := api.Snapshot{Version: 1, Revision: 10, RackID: "r", Hosts: []api.SnapHost{host("b", 1), host("a", 2)}}
	if err := s.apply(whole); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- s.waitRevision(t.Context(), 12) }()
	delta := api.Snapshot{Version: 1, Revision: 12, Since: 10, RackID: "r", Hosts: []api.SnapHost{host("c", 12)}, Gone: []string{"a"}}
	if err := s.apply(delta); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	check := func(v *view.View) {
		t.Helper()
		if v.HostByID("a") != nil || v.HostByID("b") == nil || v.HostByID("c") == nil || v.Snapshot.Revision != 12 {
			t.Errorf("%+v", v.Snapshot)
		}
	}
	check(h.View())
	if err := s.apply(delta); !errors.Is(err, errWrongBase) {
		t.Errorf("a delta for another base: %v", err)
	}
	if err := s.apply(api.Snapshot{Version: 2, Revision: 99}); err == nil {
		t.Error("another version was taken")
	}
	check(h.View())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.keep(ctx, func(err error) { t.Error(err) })
	var again view.Holder
	s2 := newSnapshotStore(dir, &again)
	if err := s2.load(); err != nil {
		t.Fatal(err)
	}
	check(again.View())
	if err := os.WriteFile(s2.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newSnapshotStore(dir, &again).load(); err == nil {
		t.Error("a torn snapshot was read")
	}
}

// desk is a region that hands out jobs and takes results.
type desk struct {
	mu      sync.Mutex
	jobs    chan api.RackJobs
	results []api.JobResult
	beats   int
	lost    map[int64]bool
	down    bool
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == api.RackClaimPath {
		select {
		case j := <-d.jobs:
			json.NewEncoder(w).Encode(j)
		case <-r.Context().Done():
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var id int64
	fmt.Sscanf(r.URL.Path, api.RackJobsPath+"%d/", &id)
	switch {
	case d.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case d.lost[id]:
		w.WriteHeader(http.StatusConflict)
	case strings.HasSuffix(r.URL.Path, "/heartbeat"):
		d.beats++
		json.NewEncoder(w).Encode(api.JobLease{LeaseSeconds: 1})
	default:
		var res api.JobResult
		json.NewDecoder(r.Body).Decode(&res)
		d.results = append(d.results, res)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (d *desk) got() []api.JobResult {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]api.JobResult(nil), d.results...)
}

// bmc is a driver whose actions can hang.
type bmc struct {
	on   atomic.Bool
	hang chan struct{}
	err  error
	acts atomic.Int64
}

func (b *bmc) Describe() power.Type {
	return power.Type{Name: "bmc", Queryable: true, Fields: []power.Field{{Name: "power_pass", Secret: true}}}
}
func (b *bmc) Query(context.Context, power.Params) (power.State, error) {
	if b.on.Load() {
		return power.On, b.err
	}
	return power.Off, b.err
}
func (b *bmc) set(ctx context.Context, on bool) error {
	b.acts.Add(1)
	if b.hang != nil {
		select {
		case <-b.hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if b.err == nil {
		b.on.Store(on)
	}
	return b.err
}
func (b *bmc) On(ctx context.Context, _ power.Params) error    { return b.set(ctx, true) }
func (b *bmc) Off(ctx context.Context, _ power.Params) error   { return b.set(ctx, false) }
func (b *bmc) Cycle(ctx context.Context, _ power.Params) error { return b.set(ctx, true) }

func order(id int64, attempt int64, machine, action, driver string) api.RackJob {
	return api.RackJob{ID: id, Kind: "power", Attempt: attempt, LeaseSeconds: 1,
		Power: &api.PowerOrder{SystemID: machine, Action: action, Driver: driver, Parameters: map[string]string{"power_pass": "hunter2"}}}
}

func TestExecutor(t *testing.T) {
	d := &desk{jobs: make(chan api.RackJobs, 10), lost: map[int64]bool{}}
	slow, quick := &bmc{hang: make(chan struct{})}, &bmc{}
	sick := &bmc{err: &power.Error{Kind: power.ErrAuth, Text: "hunter2 is wrong"}}
	l := &link{base: "http://x", hc: &http.Client{Transport: HandlerTransport(d)}}
	ready := make(chan int64, 10)
	e := &executor{link: func() *link { return l }, drivers: map[string]power.Driver{"slow": slow, "quick": quick, "sick": sick}, slots: 4, max: 20 * time.Millisecond, log: quiet,
		opts:  power.Options{Sleep: func(ctx context.Context, _ time.Duration) error { time.Sleep(time.Millisecond); return ctx.Err() }},
		ready: func(_ context.Context, rev int64) error { ready <- rev; return nil }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	give := func(j ...api.RackJob) { d.jobs <- api.RackJobs{Jobs: j, Revision: 77} }
	results := func(n int) []api.JobResult {
		t.Helper()
		waitFor(t, fmt.Sprintf("result %d", n), func() bool { return len(d.got()) >= n })
		return d.got()
	}

	give(order(1, 1, "m1", "on", "quick"), order(2, 3, "m2", "query", "sick"), order(3, 1, "m3", "on", "nosuch"))
	for _, r := range results(3) {
		switch {
		case r.Power.State == "on" && r.Power.Error == "":
		case r.Attempt == 3 && r.Power.Final && r.Power.Error == "Could not authenticate to node's BMC: ******** is wrong":
		case r.Power.Final && r.Power.Error == `Missing or invalid power setting: this rack has no power driver "nosuch"`:
		default:
			t.Errorf("%+v", r.Power)
		}
	}
	if rev := <-ready; rev != 77 {
		t.Errorf("switched on at revision %d", rev)
	}

	// The lease is kept alive while the driver works; a newer order for the machine ends the older one.
	give(order(4, 1, "m4", "on", "slow"))
	waitFor(t, "heartbeats", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.beats >= 2 })
	give(order(5, 1, "m4", "off", "quick"))
	if r := results(4)[3]; r.Power.State != "off" {
		t.Errorf("%+v", r.Power)
	}

	// A lost lease ends the work without a result.
	d.mu.Lock()
	d.lost[6] = true
	d.mu.Unlock()
	before := slow.acts.Load()
	give(order(6, 1, "m6", "on", "slow"))
	waitFor(t, "the action", func() bool { return slow.acts.Load() > before })
	waitFor(t, "the end of the action", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.current["m6"] == nil })
	if n := len(d.got()); n != 4 {
		t.Errorf("%d results", n)
	}

	// A result survives the region's absence.
	d.mu.Lock()
	d.down = true
	d.mu.Unlock()
	give(order(7, 2, "m7", "on", "quick"))
	time.Sleep(100 * time.Millisecond)
	d.mu.Lock()
	d.down = false
	d.mu.Unlock()
	if r := results(5)[4]; r.Attempt != 2 || r.Power.State != "on" {
		t.Errorf("%+v", r)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{StateDir: "/x", RegionURL: "https://region:5443"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for field, change := range map[string]func(*Config){
		"StateDir":    func(c *Config) { c.StateDir = "" },
		"RegionURL":   func(c *Config) { c.RegionURL = "http://region" },
		"Fingerprint": func(c *Config) { c.Fingerprint = "abc" },
		"CacheBytes":  func(c *Config) { c.CacheBytes = -1 },
		"Jobs":        func(c *Config) { c.Jobs = -1 },
		"TFTPAddr":    func(c *Config) { c.TFTPAddr = "x" },
		"HTTPAddr":    func(c *Config) { c.HTTPAddr = "y" },
		"RegionHTTP":  func(c *Config) { c.RegionHTTP = "z" },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// The cache keeps its bound while content arrives, and forgets what is left of fetches that nobody needs any more.
func TestCacheMakesRoomAndTidies(t *testing.T) {
	f := &blobs{data: map[string][]byte{}}
	old := f.add([]byte(strings.Repeat("old", 100)))
	next := f.add([]byte(strings.Repeat("next", 150)))
	c, err := openCache(t.TempDir(), 700, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	known := map[string]bool{old: true, next: true}
	c.size = func(sha string) (int64, bool) { return int64(len(f.data[sha])), known[sha] }
	c.fetch = func(_ context.Context, sha string, offset int64) (io.ReadCloser, error) {
		if sha == next && c.has(old) {
			t.Error("the old content is still there when there is no room for both")
		}
		return io.NopCloser(bytes.NewReader(f.data[sha][offset:])), nil
	}
	for _, sha := range []string{old, next} {
		b, err := c.Open(t.Context(), sha)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		if !slices.Equal(c.held(), []string{sha}) {
			t.Errorf("held: %q", c.held())
		}
	}
	select {
	case <-c.changed:
	default:
		t.Error("nobody was told")
	}
	for _, sha := range []string{old, next} {
		if err := os.WriteFile(filepath.Join(c.dir, sha+partial), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	delete(known, old)
	c.tidy()
	if _, err := os.Stat(filepath.Join(c.dir, old+partial)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what nobody names is kept: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, next+partial)); err != nil {
		t.Errorf("what a fetch goes on from is gone: %v", err)
	}
}
