package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/lab"
)

// ingotBinary returns the program under test, built once for all tests unless INGOT_BIN names one.
var ingotBinary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("INGOT_BIN"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("", "ingot-e2e-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ingot")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/ingot-metal/ingot/cmd/ingot").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("INGOT_BIN") == "" {
		if b, err := ingotBinary(); err == nil {
			os.RemoveAll(filepath.Dir(b))
		}
	}
	os.Exit(code)
}

// process is one running ingot.
type process struct {
	t    *testing.T
	args []string
	log  string
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan error
}

// start runs ingot with arguments; its output goes to a file that is shown when the test fails.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, args: args, log: filepath.Join(t.TempDir(), args[0]+".log")}
	p.run()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			if b, err := os.ReadFile(p.log); err == nil {
				if len(b) > 15000 {
					b = b[len(b)-15000:]
				}
				t.Logf("end of the log of ingot %s:\n%s", p.args[0], b)
			}
		}
	})
	return p
}

func (p *process) run() {
	p.t.Helper()
	bin, err := ingotBinary()
	if err != nil {
		p.t.Fatal(err)
	}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(bin, p.args...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
}

// kill ends the process as a power failure would.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.cmd.Process.Signal(syscall.SIGKILL)
		<-p.done
		p.cmd = nil
	}
}

// stop ends the process in the orderly way and fails the test when it does not.
func (p *process) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Errorf("ingot %s ended with %v", p.args[0], err)
		}
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		p.t.Errorf("ingot %s did not stop within 20 s of SIGTERM", p.args[0])
	}
	p.cmd = nil
}

func (p *process) alive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New("it was stopped")
	}
	select {
	case err := <-p.done:
		p.done <- err
		return fmt.Errorf("it ended: %v", err)
	default:
		return nil
	}
}

// ports are where a site serves, chosen before it starts so that they outlive a restart.
type ports struct {
	http, boot, link string // TCP
	dhcp, tftp       string // UDP
}

func freePorts(t *testing.T) ports {
	t.Helper()
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			c.Close()
		}
	}()
	tcp := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, l)
		return l.Addr().String()
	}
	udp := func() string {
		l, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, l)
		return l.LocalAddr().String()
	}
	return ports{http: tcp(), boot: tcp(), link: tcp(), dhcp: udp(), tftp: udp()}
}

// site is a running server, with lab machines in the test's own process so that they survive the server's death.
type site struct {
	t      *testing.T
	dir    string
	ports  ports
	server *process // dev, or region
	rack   *process // when it is a process of its own
	client *client.Client
	lab    *lab.Site
	key    string
}

type siteOptions struct {
	machines  int
	firmwares []lab.Firmware
	db        string
	args      []string
	before    func(machine, step string)
	faults    lab.Faults
	disks     int
}

// newSite starts `ingot dev` without machines of its own and runs lab machines against it.
func newSite(t *testing.T, o siteOptions) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), ports: freePorts(t)}
	args := []string{"dev", "--dir", s.dir, "--http", s.ports.http, "--machines", "0", "--dhcp", s.ports.dhcp, "--tftp", s.ports.tftp, "--boot-http", s.ports.boot}
	if o.db != "" {
		args = append(args, "--db", o.db)
	}
	s.server = start(t, append(args, o.args...)...)
	s.waitReady()
	s.connect()
	s.machines(o)
	return s
}

func (s *site) waitReady() {
	s.t.Helper()
	poll(s.t, 30*time.Second, "the server is ready", func() (bool, string) {
		if err := s.server.alive(); err != nil {
			s.t.Fatalf("the server: %v", err)
		}
		res, err := http.Get("http://" + s.ports.http + "/healthz")
		if err != nil {
			return false, err.Error()
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
}

func (s *site) connect() {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, "admin.apikey"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.key = strings.TrimSpace(string(raw))
	if s.client, err = client.New(client.Config{URL: "http://" + s.ports.http, APIKey: s.key}); err != nil {
		s.t.Fatal(err)
	}
}

// machines runs lab machines until the test ends and switches them on.
func (s *site) machines(o siteOptions) {
	s.t.Helper()
	var err error
	s.lab, err = lab.NewSite(lab.SiteConfig{Machines: o.machines, Firmwares: o.firmwares, DHCP: netip.MustParseAddrPort(s.ports.dhcp), TFTP: netip.MustParseAddrPort(s.ports.tftp),
		Before: o.before, Faults: o.faults, Disks: o.disks, Retry: retries(40, 250*time.Millisecond)})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.lab.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("lab: %v", err)
		}
		if s.t.Failed() {
			for _, m := range s.lab.Machines {
				tr := m.Trace()
				for _, st := range tr[max(0, len(tr)-40):] {
					s.t.Logf("%s %s %-6s %s", m.Config().Name, st.At.Format("04:05.000"), st.Kind, st.Text)
				}
			}
		}
	})
	s.lab.PowerOn()
}

func retries(n int, d time.Duration) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = d
	}
	return out
}

// restart kills the server and starts it again on the same folder and ports.
func (s *site) restart() {
	s.server.kill()
	s.server.run()
	s.waitReady()
}

// poll asks until ok and fails the test with the last state it saw.
func poll(t *testing.T, limit time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain until %s; last: %s", limit, what, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// byMAC finds a lab machine's record; ok is false before it has enlisted.
func (s *site) byMAC(mac string) (api.Machine, bool) {
	s.t.Helper()
	l, err := s.client.MachinesList(s.t.Context(), api.MachinesListParams{MACAddress: []string{mac}})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(l) != 1 {
		return api.Machine{}, false
	}
	return l[0], true
}

func (s *site) read(id string) api.Machine {
	s.t.Helper()
	m, err := s.client.MachineRead(s.t.Context(), api.MachineReadParams{SystemID: id})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func state(m api.Machine) string {
	msg := ""
	if m.StatusMessage != nil {
		msg = *m.StatusMessage
	}
	return fmt.Sprintf("%s %s (power %s) %s %s", m.SystemID, m.StatusName, m.PowerState, m.ErrorDescription, msg)
}

// reach waits until a machine has a status, and fails when it takes a way that it must not.
func (s *site) reach(id, want string, limit time.Duration, way ...string) api.Machine {
	s.t.Helper()
	var m api.Machine
	poll(s.t, limit, id+" is "+want, func() (bool, string) {
		m = s.read(id)
		if m.StatusName == want {
			// The region asks for the power state some seconds later; that the machine is off, the lab knows at once.
			return want != "Ready" || !s.machine(m).On(), state(m)
		}
		if m.StatusName != want && len(way) > 0 && !slices.Contains(way, m.StatusName) {
			s.t.Fatalf("on the way to %s: %s", want, state(m))
		}
		return false, state(m)
	})
	return m
}

// enlist waits until a lab machine has enlisted itself and is off, and returns its system_id.
func (s *site) enlist(m *lab.Machine) string {
	s.t.Helper()
	id := ""
	poll(s.t, 60*time.Second, m.Config().Name+" has enlisted itself", func() (bool, string) {
		x, ok := s.byMAC(m.Config().MAC)
		if !ok {
			return false, "unknown; the machine is " + m.State()
		}
		id = x.SystemID
		return x.StatusName == "New" && !m.On(), state(x)
	})
	return id
}

// machine finds the lab machine of a record.
func (s *site) machine(x api.Machine) *lab.Machine {
	s.t.Helper()
	for _, i := range x.InterfaceSet {
		if i.MACAddress != nil {
			if m := s.lab.Machine(*i.MACAddress); m != nil {
				return m
			}
		}
	}
	s.t.Fatalf("no lab machine is %s", state(x))
	return nil
}

func (s *site) commission(id string) api.Machine {
	s.t.Helper()
	if _, err := s.client.MachineCommission(s.t.Context(), api.MachineCommissionParams{SystemID: id}); err != nil {
		s.t.Fatal(err)
	}
	return s.reach(id, "Ready", 60*time.Second, "Commissioning", "Testing")
}

const userData = "#cloud-config\nruncmd: [\"touch /e2e\"]\n"

func (s *site) allocate(id string) {
	s.t.Helper()
	m, err := s.client.MachinesAllocate(s.t.Context(), api.MachinesAllocateParams{SystemID: []string{id}, Mem: []string{"1024"}})
	if err != nil {
		s.t.Fatal(err)
	}
	if m.SystemID != id || m.StatusName != "Allocated" {
		s.t.Fatalf("allocate gave %s", state(m))
	}
}

func (s *site) deploy(id string) {
	s.t.Helper()
	if _, err := s.client.MachineDeploy(s.t.Context(), deployParams(id)); err != nil {
		s.t.Fatal(err)
	}
}

func deployParams(id string) api.MachineDeployParams {
	return api.MachineDeployParams{SystemID: id, DistroSeries: ptr("custom/lab"), UserData: ptr(base64.StdEncoding.EncodeToString([]byte(userData)))}
}

func (s *site) release(id string, erase bool) {
	s.t.Helper()
	if _, err := s.client.MachineRelease(s.t.Context(), api.MachineReleaseParams{SystemID: id, Erase: &erase, QuickErase: &erase}); err != nil {
		s.t.Fatal(err)
	}
	s.reach(id, "Ready", 60*time.Second, "Releasing", "Disk erasing")
}

// life carries a lab machine from unknown to Ready again.
func (s *site) life(m *lab.Machine) {
	s.t.Helper()
	id := s.enlist(m)
	x := s.commission(id)
	if x.CPUCount != int64(m.Config().CPUs) || x.Memory != int64(m.Config().Memory) || len(x.BlockdeviceSet) != 1 || len(x.InterfaceSet) != 1 {
		s.t.Fatalf("inventory of %s: %d CPUs, %d MiB, %d disks, %d interfaces", id, x.CPUCount, x.Memory, len(x.BlockdeviceSet), len(x.InterfaceSet))
	}
	s.allocate(id)
	s.deploy(id)
	x = s.reach(id, "Deployed", 60*time.Second, "Deploying")
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if err := m.Wait(ctx, func(m *lab.Machine) bool { return m.System() != nil }); err != nil {
		s.t.Fatal(err)
	}
	sys := m.System()
	if string(sys.UserData) != userData {
		s.t.Fatalf("user data on the machine: %q", sys.UserData)
	}
	if len(x.IPAddresses) == 0 || !slices.Contains(x.IPAddresses, sys.Address) {
		s.t.Fatalf("the API says %v, the machine has %s", x.IPAddresses, sys.Address)
	}
	if x.Netboot {
		s.t.Fatal("netboot is still on")
	}
	disk := m.Disk(m.Config().Disks[0].Name)
	if !disk.Contains("EFI PART") {
		s.t.Fatal("nothing was installed")
	}
	s.release(id, true)
	if disk.Contains("EFI PART") || disk.Contains("metadata_url") {
		s.t.Fatal("the disk was not erased")
	}
	if x := s.read(id); x.Owner != nil && *x.Owner != "" {
		s.t.Fatalf("owner after release: %s", *x.Owner)
	}
	poll(s.t, 60*time.Second, "the region knows that the machine is off", func() (bool, string) {
		x := s.read(id)
		return x.PowerState == "off", state(x)
	})
}

func ptr[T any](v T) *T { return &v }
