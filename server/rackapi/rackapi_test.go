package rackapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/server/rackapi"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// clock is a clock that tests can move: leases run out without waiting.
type clock struct {
	mu sync.Mutex
	d  time.Duration
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return time.Now().Add(c.d) }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.d += d
}

// region is a region controller on a real TLS listener, which can be stopped and started again.
type region struct {
	t     *testing.T
	db    *storage.DB
	p     *provisioner.Service
	pki   *rackapi.PKI
	clock *clock
	addr  string
	log   *bytes.Buffer
	stop  func()
}

// safeBuffer is a log that several goroutines write.
type safeBuffer struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (s safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func startRegion(t *testing.T) *region {
	t.Helper()
	c := &clock{}
	r := &region{t: t, clock: c, db: storagetest.New(t, storagetest.WithNow(c.now)), log: &bytes.Buffer{}}
	blobs, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blobs.Close() })
	r.p = provisioner.New(provisioner.Config{DB: r.db, Now: c.now, Content: blobs})
	dir := filepath.Join(t.TempDir(), "pki")
	if r.pki, err = rackapi.OpenPKI(dir, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.key", "rack-secret"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	again, err := rackapi.OpenPKI(dir, nil)
	if err != nil || again.Fingerprint() != r.pki.Fingerprint() || again.Secret() != r.pki.Secret() {
		t.Fatalf("the authority is another after a restart: %v", err)
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *region) start() {
	addr := r.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var ln net.Listener
	var err error
	for range 50 {
		if ln, err = net.Listen("tcp", addr); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	link := rackapi.New(rackapi.Config{P: r.p, PKI: r.pki, Log: slog.New(slog.NewTextHandler(safeBuffer{new(sync.Mutex), r.log}, nil))})
	srv := &http.Server{Handler: link, TLSConfig: r.pki.TLS(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	go srv.ServeTLS(ln, "", "")
	r.stop = sync.OnceFunc(func() { link.Close(); srv.Close() })
}

func (r *region) write(fn func(tx *storage.Tx) error) {
	r.t.Helper()
	if err := r.db.Write(r.t.Context(), fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *region) read(fn func(tx *storage.Tx) error) {
	r.t.Helper()
	if err := r.db.Read(r.t.Context(), fn); err != nil {
		r.t.Fatal(err)
	}
}

// machine adds a machine with a MAC address and a BMC of the driver "bmc".
func (r *region) machine(systemID string, n byte, status storage.NodeStatus) storage.Node {
	r.t.Helper()
	pool := storage.DefaultPoolID
	node := storage.Node{SystemID: systemID, Hostname: systemID, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool, Status: status,
		Architecture: "amd64/generic", PowerType: "bmc", PowerParameters: json.RawMessage(`{"power_pass": "hunter2", "flags": ["a", "b"]}`), Netboot: true, PowerState: "off"}
	r.write(func(tx *storage.Tx) error {
		rev, err := tx.Revision()
		if err != nil {
			return err
		}
		node.Revision = rev
		if status == storage.StatusCommissioning {
			node.StatusExpires = tx.Now().Add(time.Minute)
		}
		if err := tx.InsertNode(&node); err != nil {
			return err
		}
		vlan := storage.DefaultVLANID
		return tx.InsertInterface(&storage.Interface{NodeID: node.ID, Name: "eth0", Type: "physical", MACAddress: mac(n), VLANID: &vlan, Enabled: true})
	})
	return node
}

func mac(n byte) string { return fmt.Sprintf("52:54:00:aa:00:%02x", n) }

// order enqueues a power job for any rack.
func (r *region) order(n storage.Node, action string) storage.Job {
	r.t.Helper()
	var j storage.Job
	r.write(func(tx *storage.Tx) (err error) {
		args, _ := json.Marshal(provisioner.PowerArgs{SystemID: n.SystemID, Action: action})
		key := "power:" + n.SystemID
		if j, err = tx.EnqueueJob(storage.Job{Kind: "power", Queue: "rack", UniqueKey: &key, Args: args, NodeID: &n.ID}); err != nil {
			return err
		}
		_, err = tx.Revision()
		return err
	})
	return j
}

func (r *region) job(id int64) (j storage.Job) {
	r.t.Helper()
	r.read(func(tx *storage.Tx) (err error) { j, err = tx.Job(id); return err })
	return j
}

func (r *region) node(id int64) (n storage.Node) {
	r.t.Helper()
	r.read(func(tx *storage.Tx) (err error) { n, err = tx.NodeByID(id); return err })
	return n
}

// bmc is a driver that does what it is told, or hangs until it is let go.
type bmc struct {
	mu     sync.Mutex
	on     bool
	seen   []power.Params
	hang   chan struct{}
	broken error
}

func (b *bmc) Describe() power.Type {
	return power.Type{Name: "bmc", Queryable: true, Fields: []power.Field{{Name: "power_pass", Secret: true, Required: true}}}
}
func (b *bmc) Query(context.Context, power.Params) (power.State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		return power.On, b.broken
	}
	return power.Off, b.broken
}
func (b *bmc) set(ctx context.Context, p power.Params, on bool) error {
	b.mu.Lock()
	b.seen = append(b.seen, p)
	hang, broken := b.hang, b.broken
	b.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if broken == nil {
		b.on = on
	}
	return broken
}
func (b *bmc) On(ctx context.Context, p power.Params) error    { return b.set(ctx, p, true) }
func (b *bmc) Off(ctx context.Context, p power.Params) error   { return b.set(ctx, p, false) }
func (b *bmc) Cycle(ctx context.Context, p power.Params) error { return b.set(ctx, p, true) }
func (b *bmc) calls() int                                      { b.mu.Lock(); defer b.mu.Unlock(); return len(b.seen) }

func (r *region) rackConfig(b *bmc) bootsrv.Config {
	return bootsrv.Config{RegionURL: "https://" + r.addr, Fingerprint: r.pki.Fingerprint(), Secret: r.pki.Secret(), StateDir: r.t.TempDir(), Hostname: "rack-1", Version: "1.0",
		Interfaces: []api.RackInterface{{Name: "eth1", Addresses: []string{"10.9.0.2/24"}}}, Drivers: map[string]power.Driver{"bmc": b}, MaxBackoff: 50 * time.Millisecond,
		Power: power.Options{Sleep: func(ctx context.Context, _ time.Duration) error { time.Sleep(time.Millisecond); return ctx.Err() }}}
}

func (r *region) rack(c bootsrv.Config) (*bootsrv.Rack, func()) {
	r.t.Helper()
	rack, err := bootsrv.New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- rack.Run(ctx) }()
	return rack, sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			r.t.Errorf("rack: %v", err)
		}
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// addSubnet makes the subnet that the rack is in, with DHCP.
func (r *region) addSubnet() storage.Subnet {
	r.t.Helper()
	sn := storage.Subnet{VLANID: storage.DefaultVLANID, Name: "lab", CIDR: "10.9.0.0/24", Managed: true, AllowDNS: true}
	sn.FirstIP, sn.LastIP = addr("10.9.0.0"), addr("10.9.0.255")
	r.write(func(tx *storage.Tx) error {
		if err := tx.InsertSubnet(&sn); err != nil {
			return err
		}
		if err := tx.InsertIPRange(&storage.IPRange{SubnetID: sn.ID, Type: "dynamic", StartIP: addr("10.9.0.100"), EndIP: addr("10.9.0.200")}); err != nil {
			return err
		}
		v, err := tx.VLAN(storage.DefaultVLANID)
		if err != nil {
			return err
		}
		v.DhcpOn = true
		if err := tx.UpdateVLAN(&v); err != nil {
			return err
		}
		_, err = tx.Revision()
		return err
	})
	return sn
}

func TestRackOverHTTPS(t *testing.T) {
	r := startRegion(t)
	b := &bmc{}
	c := r.rackConfig(b)
	rack, stop := r.rack(c)
	defer stop()
	if err := rack.WaitRevision(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	// The subnet comes after the rack's hello: it serves it all the same.
	r.addSubnet()
	m := r.machine("aaaaaa", 1, storage.StatusCommissioning)
	waitFor(t, "the machine in the rack's snapshot", func() bool { return rack.View().Host(mac(1)) != nil })
	v := rack.View()
	if n := v.VLAN(storage.DefaultVLANID); len(n) != 1 || !n[0].DHCP || n[0].RackAddress != "10.9.0.2" || !n[0].InDynamic(addr("10.9.0.150")) {
		t.Errorf("subnets %+v", n)
	}
	h := v.Host(mac(1))
	if h.Purpose != api.PurposeCommission || h.Boot != nil || !strings.Contains(h.Error, "missing boot image ingot/light") {
		t.Errorf("host without images %+v", h)
	}

	// An uploaded environment reaches the host although the host itself did not change, and its content is fetched and verified.
	kernel := bytes.Repeat([]byte("k"), 100_000)
	sha, size, err := r.p.Content.Put(bytes.NewReader(kernel))
	if err != nil {
		t.Fatal(err)
	}
	r.write(func(tx *storage.Tx) error {
		res := storage.BootResource{Rtype: storage.ResourceUploaded, Name: "ingot/light", Architecture: "amd64/generic"}
		if err := tx.InsertBootResource(&res); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: res.ID, Version: "1", Label: "stable"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		for _, f := range []string{"boot-kernel", "boot-initrd"} {
			if err := tx.InsertBootResourceFile(&storage.BootResourceFile{SetID: set.ID, Filename: f, Filetype: f, SHA256: sha, Size: size, Uploaded: size, Complete: true}); err != nil {
				return err
			}
		}
		_, err := tx.Revision()
		return err
	})
	waitFor(t, "the image in the rack's snapshot", func() bool { h := rack.View().Host(mac(1)); return h != nil && h.Boot != nil })
	if img := rack.View().Host(mac(1)).Boot; img.Kernel != sha+"/ingot/amd64/generic/light/stable/boot-kernel" || img.PreseedPath != "/MAAS/metadata/latest/by-id/aaaaaa/?op=get_preseed" {
		t.Errorf("boot image %+v", img)
	}
	if err := rack.Prefetch(t.Context(), sha); err != nil {
		t.Fatal(err)
	}

	// Power: the parameters travel, the result is the machine's state, and no secret is in the database's job.
	j := r.order(m, "on")
	waitFor(t, "the machine to be on", func() bool { return r.node(m.ID).PowerState == "on" })
	if j = r.job(j.ID); j.State != storage.JobDone || j.Attempt != 1 || strings.Contains(string(j.Args)+string(j.Result), "hunter2") {
		t.Errorf("job %+v", j)
	}
	if p := b.seen[0]; p["power_pass"] != "hunter2" || p["flags"] != "a,b" || p["system_id"] != "aaaaaa" {
		t.Errorf("parameters %v", p)
	}

	// A deleted machine leaves the snapshot.
	r.write(func(tx *storage.Tx) error { return tx.DeleteNode(m.ID) })
	waitFor(t, "the machine to leave", func() bool { return rack.View().HostByID("aaaaaa") == nil })

	var node storage.Node
	r.read(func(tx *storage.Tx) (err error) { node, err = tx.NodeByHostname("rack-1"); return err })
	if node.NodeType != storage.NodeRack || node.Version != "1.0" || node.Architecture != "amd64/generic" || node.LastSeen.IsZero() {
		t.Errorf("rack %+v", node)
	}
	stop()

	// It needs no secret the second time.
	c.Secret, c.Fingerprint = "", ""
	rack, stop = r.rack(c)
	defer stop()
	r.machine("bbbbbb", 2, storage.StatusReady)
	waitFor(t, "the snapshot after a restart", func() bool { return rack.View().HostByID("bbbbbb") != nil })

	// Deleting the rack revokes its certificate.
	r.write(func(tx *storage.Tx) error { return tx.DeleteNode(node.ID) })
	r.machine("cccccc", 3, storage.StatusReady)
	time.Sleep(300 * time.Millisecond)
	if rack.View().HostByID("cccccc") != nil {
		t.Error("a rack that was deleted still gets snapshots")
	}
	if rack.View().HostByID("bbbbbb") == nil {
		t.Error("a rack that was deleted forgot what it knew")
	}
	if strings.Contains(r.log.String(), r.pki.Secret()) || strings.Contains(r.log.String(), "hunter2") {
		t.Error("a secret is in the log")
	}
}

func TestEnrolmentRefused(t *testing.T) {
	r := startRegion(t)
	run := func(change func(*bootsrv.Config)) error {
		c := r.rackConfig(&bmc{})
		change(&c)
		rack, err := bootsrv.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return rack.Run(ctx)
	}
	if err := run(func(c *bootsrv.Config) { c.Secret = "wrong" }); err == nil || !strings.Contains(err.Error(), "401: wrong enrolment secret") {
		t.Errorf("wrong secret: %v", err)
	}
	// A region that is not the pinned one never sees the secret; the rack keeps trying, for addresses may be wrong for a while.
	if err := run(func(c *bootsrv.Config) { c.Fingerprint = strings.Repeat("00", 32) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wrong fingerprint: %v", err)
	}
	m := r.machine("dddddd", 9, storage.StatusReady)
	if err := run(func(c *bootsrv.Config) { c.Hostname = m.Hostname }); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("a machine's host name: %v", err)
	}
	r.read(func(tx *storage.Tx) error {
		racks, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeRack}})
		if len(racks) != 0 {
			t.Errorf("%d racks were enrolled", len(racks))
		}
		return err
	})
	// Guessing is slowed down, even for those who then guess right.
	for range 6 {
		r.post(t, api.RackEnrolPath, api.RackEnrol{Secret: rand.Text()})
	}
	if code := r.post(t, api.RackEnrolPath, api.RackEnrol{Secret: r.pki.Secret()}); code != http.StatusTooManyRequests {
		t.Errorf("after many wrong secrets: %d", code)
	}
}

// post sends a request as a stranger without a certificate.
func (r *region) post(t *testing.T, path string, v any) int {
	t.Helper()
	raw, _ := json.Marshal(v)
	tr := &http.Transport{TLSClientConfig: r.pki.TLS().Clone()}
	tr.TLSClientConfig.Certificates = nil
	tr.TLSClientConfig.InsecureSkipVerify = true
	res, err := (&http.Client{Transport: tr}).Post("https://"+r.addr+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func TestStrangers(t *testing.T) {
	r := startRegion(t)
	for _, path := range []string{api.RackHelloPath, api.RackClaimPath, api.RackReportsPath, "/rack/v1/jobs/1/result", "/rack/v1/jobs/1/heartbeat"} {
		if code := r.post(t, path, map[string]any{}); code != http.StatusUnauthorized {
			t.Errorf("%s without a certificate: %d", path, code)
		}
	}
	if code := r.post(t, "/rack/v1/nothing", nil); code != http.StatusNotFound {
		t.Errorf("unknown path: %d", code)
	}
	for name, v := range map[string]any{"not JSON for it": []int{1}, "no CSR": api.RackEnrol{Secret: r.pki.Secret()},
		"bad CSR": api.RackEnrol{Secret: r.pki.Secret(), CSR: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}} {
		if code := r.post(t, api.RackEnrolPath, v); code != http.StatusBadRequest {
			t.Errorf("%s: %d", name, code)
		}
	}
}

// inProcess talks to the region as a trusted rack.
type inProcess struct {
	t  *testing.T
	hc *http.Client
}

func (r *region) trusted(t *testing.T, hostname string) (inProcess, storage.Node) {
	t.Helper()
	n, err := r.p.RegisterRack(t.Context(), api.RackHello{Hostname: hostname, Architecture: "amd64", Interfaces: []api.RackInterface{}}, storage.NodeRegionRack, "")
	if err != nil {
		t.Fatal(err)
	}
	link := rackapi.New(rackapi.Config{P: r.p})
	t.Cleanup(link.Close)
	return inProcess{t, &http.Client{Transport: bootsrv.HandlerTransport(link.Trusted(n.SystemID))}}, n
}

func (c inProcess) do(method, path string, in, out any) int {
	c.t.Helper()
	raw, _ := json.Marshal(in)
	if s, ok := in.(string); ok {
		raw = []byte(s)
	}
	req, _ := http.NewRequestWithContext(c.t.Context(), method, "http://x"+path, bytes.NewReader(raw))
	res, err := c.hc.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if out != nil && res.StatusCode == 200 {
		if err := json.Unmarshal(body, out); err != nil {
			c.t.Fatalf("%s: %v", body, err)
		}
	}
	return res.StatusCode
}

// The region is restarted in the middle of a job, long enough for the lease to end: another rack takes attempt 2, and the late
// result of attempt 1 is refused.
func TestLateResultIsRefused(t *testing.T) {
	r := startRegion(t)
	m := r.machine("eeeeee", 5, storage.StatusReady)
	slow := &bmc{hang: make(chan struct{})}
	rack, stop := r.rack(r.rackConfig(slow))
	defer stop()
	if err := rack.WaitRevision(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	j := r.order(m, "on")
	waitFor(t, "attempt 1", func() bool { return slow.calls() == 1 })
	r.stop()
	r.clock.add(2 * time.Minute)
	other, second := r.trusted(t, "rack-2")
	var got api.RackJobs
	if code := other.do("POST", api.RackClaimPath, api.RackClaim{Limit: 10}, &got); code != 200 || len(got.Jobs) != 1 || got.Jobs[0].Attempt != 2 || got.Jobs[0].Power.Parameters["power_pass"] != "hunter2" {
		t.Fatalf("%d %+v", code, got)
	}
	r.start()
	close(slow.hang) // attempt 1 ends well, but too late
	time.Sleep(500 * time.Millisecond)
	if now := r.job(j.ID); now.State != storage.JobRunning || now.Attempt != 2 || now.Worker != second.SystemID {
		t.Errorf("after the late result: %+v", now)
	}
	if n := r.node(m.ID); n.PowerState != "off" {
		t.Errorf("the late result made the machine %s", n.PowerState)
	}
	path := fmt.Sprintf("%s%d/", api.RackJobsPath, j.ID)
	if code := other.do("POST", path+"result", api.JobResult{Attempt: 1, Power: &api.PowerResult{State: "on"}}, nil); code != 409 {
		t.Errorf("result of attempt 1: %d", code)
	}
	if code := other.do("POST", path+"heartbeat", api.JobHeartbeat{Attempt: 2}, nil); code != 200 {
		t.Errorf("heartbeat of attempt 2: %d", code)
	}
	if code := other.do("POST", path+"result", api.JobResult{Attempt: 2, Power: &api.PowerResult{State: "on"}}, nil); code != 204 {
		t.Errorf("result of attempt 2: %d", code)
	}
	if code := other.do("POST", path+"result", api.JobResult{Attempt: 2, Power: &api.PowerResult{State: "on"}}, nil); code != 409 {
		t.Errorf("the same result again: %d", code)
	}
	if n := r.node(m.ID); n.PowerState != "on" || r.job(j.ID).State != storage.JobDone {
		t.Errorf("in the end the machine is %s", n.PowerState)
	}
}

// A short restart of the region does not disturb a job: its result is taken.
func TestShortRestart(t *testing.T) {
	r := startRegion(t)
	m := r.machine("ffffff", 6, storage.StatusReady)
	slow := &bmc{hang: make(chan struct{})}
	rack, stop := r.rack(r.rackConfig(slow))
	defer stop()
	if err := rack.WaitRevision(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	j := r.order(m, "on")
	waitFor(t, "attempt 1", func() bool { return slow.calls() == 1 })
	r.stop()
	close(slow.hang)
	time.Sleep(200 * time.Millisecond)
	r.start()
	waitFor(t, "the result", func() bool { return r.job(j.ID).State == storage.JobDone })
	if n := r.node(m.ID); n.PowerState != "on" || r.job(j.ID).Attempt != 1 {
		t.Errorf("the machine is %s after attempt %d", n.PowerState, r.job(j.ID).Attempt)
	}
}

func TestFailuresAndLostWorkers(t *testing.T) {
	r := startRegion(t)
	rack, _ := r.trusted(t, "rack-2")
	claim := func() api.RackJobs {
		t.Helper()
		var got api.RackJobs
		if code := rack.do("POST", api.RackClaimPath, api.RackClaim{Limit: 10}, &got); code != 200 {
			t.Fatalf("claim: %d", code)
		}
		return got
	}
	events := func(id int64, kind string) (out []storage.Event) {
		t.Helper()
		r.read(func(tx *storage.Tx) error {
			all, err := tx.Events(storage.EventFilter{SystemIDs: []string{r.node(id).SystemID}, Limit: 100})
			for _, e := range all {
				if e.Type == kind {
					out = append(out, e)
				}
			}
			return err
		})
		return out
	}
	result := func(j api.RackJob, res api.PowerResult) int {
		return rack.do("POST", fmt.Sprintf("%s%d/result", api.RackJobsPath, j.ID), api.JobResult{Attempt: j.Attempt, Power: &res}, nil)
	}

	// Two attempts fail quietly, the third is the machine's failure.
	m := r.machine("gggggg", 7, storage.StatusReady)
	j := r.order(m, "on")
	for attempt := int64(1); attempt <= 3; attempt++ {
		got := claim()
		if len(got.Jobs) != 1 || got.Jobs[0].Attempt != attempt {
			t.Fatalf("attempt %d: %+v", attempt, got)
		}
		if code := result(got.Jobs[0], api.PowerResult{State: "unknown", Error: "Could not contact node's BMC: no answer"}); code != 204 {
			t.Fatal(code)
		}
		if n := len(events(m.ID, "NODE_POWER_ON_FAILED")); (attempt < 3) != (n == 0) {
			t.Errorf("%d failure events after attempt %d", n, attempt)
		}
		r.clock.add(time.Minute)
	}
	if now := r.job(j.ID); now.State != storage.JobFailed {
		t.Errorf("job %+v", now)
	}
	if ev := events(m.ID, "NODE_POWER_ON_FAILED"); len(ev) != 1 || !strings.Contains(ev[0].Description, "no answer") {
		t.Errorf("events %+v", ev)
	}

	// A final failure needs no second attempt.
	f := r.machine("hhhhhh", 8, storage.StatusReady)
	j = r.order(f, "on")
	if got := claim(); len(got.Jobs) != 1 || result(got.Jobs[0], api.PowerResult{State: "unknown", Error: "Could not authenticate to node's BMC: no", Final: true}) != 204 {
		t.Fatal("no result")
	}
	if now := r.job(j.ID); now.State != storage.JobFailed || now.Attempt != 1 {
		t.Errorf("job %+v", now)
	}

	// A rack that is lost at each attempt: the machine's power state does not stay open for ever.
	l := r.machine("kkkkkk", 10, storage.StatusReady)
	j = r.order(l, "on")
	for range 3 {
		if got := claim(); len(got.Jobs) != 1 {
			t.Fatal("not claimed")
		}
		r.clock.add(time.Minute)
	}
	if err := r.p.EndLostJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := r.job(j.ID); now.State != storage.JobFailed || len(events(l.ID, "NODE_POWER_ON_FAILED")) != 1 {
		t.Errorf("job %+v", now)
	}

	// A machine without a power type, and one that is gone, fail at the claim.
	g := r.machine("nnnnnn", 11, storage.StatusReady)
	j = r.order(g, "on")
	r.write(func(tx *storage.Tx) error {
		_, err := tx.Exec(`update nodes set power_type = '' where id = $1`, g.ID)
		return err
	})
	if got := claim(); len(got.Jobs) != 0 || r.job(j.ID).State != storage.JobFailed {
		t.Errorf("%+v %+v", got, r.job(j.ID))
	}

	for in, want := range map[string]int{`{"limit": 0}`: 400, `{"limit": 100000}`: 400, `{`: 400, `{"limit": 1} x`: 400, `{"limit": "1"}`: 400} {
		if code := rack.do("POST", api.RackClaimPath, in, nil); code != want {
			t.Errorf("claim %s: %d", in, code)
		}
	}
	for path, want := range map[string]int{"jobs/x/result": 404, "jobs/999999/result": 409, "content/abc": 404, "content/" + strings.Repeat("0", 64): 404} {
		method, body := "POST", any(api.JobResult{Attempt: 1, Power: &api.PowerResult{State: "on"}})
		if strings.HasPrefix(path, "content") {
			method, body = "GET", ""
		}
		if code := rack.do(method, "/rack/v1/"+path, body, nil); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
}

func TestReports(t *testing.T) {
	r := startRegion(t)
	r.addSubnet()
	rack, node := r.trusted(t, "rack-2")
	m := r.machine("pppppp", 12, storage.StatusCommissioning)
	before := r.node(m.ID).StatusExpires
	at := time.Now().UTC().Truncate(time.Microsecond)
	batch := api.RackReports{Boots: []api.BootStep{
		{At: at, Kind: "dhcp-offer", MAC: mac(12), Protocol: "dhcp"},
		{At: at.Add(1), Kind: "loader", Client: "10.9.0.120", Protocol: "tftp", Path: "lpxelinux.0"},
		{At: at.Add(2 * time.Second), Kind: "boot-config", MAC: mac(12), SystemID: "pppppp", Client: "10.9.0.120", Rack: "10.9.0.2", Protocol: "http", Path: "pxelinux.cfg/x", Method: "pxe",
			Purpose: "commissioning", VLANID: storage.DefaultVLANID},
		{At: at.Add(3 * time.Second), Kind: "root", SystemID: "pppppp", Protocol: "http", Path: "images/x/squashfs"},
		{At: at.Add(3 * time.Second), Kind: "boot-config", MAC: "52:54:00:ff:ff:ff", Path: "evil\n\x00" + strings.Repeat("x", 5000)},
		{At: at, Kind: "kernel", Client: "192.0.2.1"},
	}, Leases: []api.LeaseReport{{At: at, IP: "10.9.0.120", MAC: mac(12), Expires: at.Add(10 * time.Minute)}}}
	for range 2 { // a retry changes nothing
		if code := rack.do("POST", api.RackReportsPath, batch, nil); code != 204 {
			t.Fatalf("reports: %d", code)
		}
	}
	n := r.node(m.ID)
	if n.BootInterfaceID == nil || n.BIOSBootMethod == nil || *n.BIOSBootMethod != "pxe" || n.BootRackIP != "10.9.0.2" || !n.StatusExpires.After(before) {
		t.Errorf("learnt %+v", n)
	}
	r.read(func(tx *storage.Tx) error {
		boots, err := tx.Boots(m.ID, 10)
		if err != nil {
			return err
		}
		if len(boots) != 1 || boots[0].Rack != node.SystemID || boots[0].Purpose != "commissioning" {
			t.Fatalf("boots %+v", boots)
		}
		steps, err := boots[0].Timeline()
		var kinds []string
		for _, s := range steps {
			kinds = append(kinds, s.Step)
		}
		if strings.Join(kinds, " ") != "dhcp-offer loader boot-config root" {
			t.Errorf("steps %v", kinds)
		}
		ev, err2 := tx.Events(storage.EventFilter{SystemIDs: []string{"pppppp"}, Limit: 50})
		count := map[string]int{}
		for _, e := range ev {
			count[e.Type+" "+e.Description]++
		}
		for _, want := range []string{"NODE_PXE_REQUEST commissioning", "PERFORMING_PXE_BOOT ", "NODE_TFTP_REQUEST lpxelinux.0", "NODE_HTTP_REQUEST images/x/squashfs", "LOADING_EPHEMERAL "} {
			if count[want] != 1 {
				t.Errorf("%d events %q in %v", count[want], want, count)
			}
		}
		unknown, err3 := tx.BootsByMAC("52:54:00:ff:ff:ff", 1)
		if len(unknown) != 1 || unknown[0].NodeID != nil || len(unknown[0].Steps) > 1000 {
			t.Errorf("unknown machine's boot %+v", unknown)
		}
		return errors.Join(err, err2, err3)
	})
	// The next time it asks DHCP for a loader is another boot.
	again := api.RackReports{Boots: []api.BootStep{{At: at.Add(60 * time.Second), Kind: "dhcp-offer", MAC: mac(12)}}}
	if code := rack.do("POST", api.RackReportsPath, again, nil); code != 204 {
		t.Fatal(code)
	}
	r.read(func(tx *storage.Tx) error {
		boots, err := tx.Boots(m.ID, 10)
		if len(boots) != 2 {
			t.Errorf("%d boots", len(boots))
		}
		return err
	})
	if code := rack.do("POST", api.RackReportsPath, `{"leases": [{"ip": "x"}]}`, nil); code != 400 {
		t.Errorf("a lease without an address: %d", code)
	}
	if code := rack.do("POST", api.RackReportsPath, `{"boots": "`+strings.Repeat("x", 9<<20)+`"}`, nil); code != 413 {
		t.Errorf("a huge batch: %d", code)
	}
}
