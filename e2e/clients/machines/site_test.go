package machines

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	maas "github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	"golang.org/x/crypto/ssh"

	"github.com/ingot-metal/ingot/lab/qemu"
)

func TestMain(m *testing.M) { os.Exit(qemu.Main(m)) }

// site is a region, a rack and a bridge with machines.
type site struct {
	t      *testing.T
	net    *qemu.Net
	bin    string
	dir    string
	region *process
	rack   *process
	*maas.Client
	signer ssh.Signer
	key    string // of the API
}

// process is a program that ends with the test.
type process struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

func (s *site) start(name string, args ...string) *process {
	s.t.Helper()
	p := &process{log: filepath.Join(s.dir, name+".log"), exited: make(chan struct{})}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.Command(s.bin, args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }()
	return p
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
		t.Errorf("%s did not stop within 20 s of SIGTERM", filepath.Base(p.log))
	}
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	if len(b) > 12000 {
		b = b[len(b)-12000:]
	}
	return string(b)
}

const (
	apiAddr  = "127.0.0.1:5240"
	linkAddr = "127.0.0.1:5250"
)

// newSite builds the images (or finds them in the cache), starts region and rack, and models the network that the machines are on.
func newSite(t *testing.T) *site {
	t.Helper()
	if os.Getenv("INGOT_QEMU") == "" {
		t.Skip("set INGOT_QEMU=1 to run QEMU machines; `make e2e` does")
	}
	if !qemu.Inside() {
		t.Fatalf("QEMU machines need root and packages: %v", qemu.Missing())
	}
	s := &site{t: t, dir: t.TempDir(), bin: os.Getenv("INGOT_BIN")}
	if s.bin == "" {
		s.bin = filepath.Join("..", "..", "..", "bin", "ingot")
	}
	if abs, err := filepath.Abs(s.bin); err == nil {
		s.bin = abs
	}
	if _, err := os.Stat(s.bin); err != nil {
		t.Fatalf("no server to test: %v; run `make build` first or set INGOT_BIN", err)
	}
	images := os.Getenv("INGOT_IMAGES")
	if images == "" {
		build := exec.Command(s.bin, "image", "build")
		build.Dir, build.Stderr = filepath.Join("..", "..", ".."), os.Stderr // the agent is built from the sources
		out, err := build.Output()
		if err != nil {
			t.Fatalf("image build: %v", err)
		}
		images = strings.TrimSpace(string(out))
	}
	var err error
	if s.net, err = qemu.NewNet(qemu.NetOptions{Logf: t.Logf, Dir: filepath.Join(s.dir, "machines")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.net.Close() })

	s.startRegion()
	t.Cleanup(func() {
		s.region.stop(t)
		if t.Failed() {
			t.Logf("region:\n%s", s.region.tail())
		}
	})
	out, err := exec.Command(s.bin, "image", "import", images, "--dir", s.regionDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("image import: %v\n%s", err, out)
	}
	key, err := os.ReadFile(filepath.Join(s.regionDir(), "admin.apikey"))
	if err != nil {
		t.Fatal(err)
	}
	s.key = strings.TrimSpace(string(key))
	if s.Client, err = maas.GetClient("http://"+apiAddr+"/MAAS", s.key, "2.0"); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`--fingerprint (\S+)`).FindStringSubmatch(s.region.tail())
	if m == nil {
		t.Fatalf("the region does not say its fingerprint:\n%s", s.region.tail())
	}
	s.rack = s.start("rack", "rack", "--dir", filepath.Join(s.dir, "rack-state"), "--interface", s.net.Bridge(), "--region", "https://"+linkAddr,
		"--region-http", "http://"+apiAddr, "--fingerprint", m[1], "--secret-file", filepath.Join(s.regionDir(), "pki", "rack-secret"))
	t.Cleanup(func() {
		s.rack.stop(t)
		if t.Failed() {
			t.Logf("rack:\n%s", s.rack.tail())
		}
	})
	s.model()

	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if s.signer, err = ssh.NewSignerFromKey(priv); err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SSHKeys.Create(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub))) + " e2e"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) regionDir() string { return filepath.Join(s.dir, "region-state") }

func (s *site) startRegion() {
	s.t.Helper()
	s.region = s.start("region", "region", "--dir", s.regionDir(), "--http", apiAddr, "--rack-link", linkAddr)
	s.wait(time.Minute, "the region is ready", func() (bool, string) {
		res, err := http.Get("http://" + apiAddr + "/healthz")
		if err != nil {
			return false, err.Error()
		}
		res.Body.Close()
		return res.StatusCode == 200, res.Status
	})
}

// model waits for the rack, and describes the bridge to the region: a subnet with addresses to lease, and DHCP switched on.
func (s *site) model() {
	s.t.Helper()
	var rack entity.RackController
	s.wait(30*time.Second, "the rack has enrolled", func() (bool, string) {
		all, err := s.RackControllers.Get(&entity.RackControllersGetParams{})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range all {
			if r.NodeType == 2 || r.NodeType == 4 {
				rack = r
				return true, ""
			}
		}
		return false, fmt.Sprintf("%d controllers; rack: %s", len(all), s.rack.tail())
	})
	const cidr = "10.77.0.0/24"
	n, err := s.Subnets.Create(&entity.SubnetParams{CIDR: cidr, Name: "lab", Managed: true, GatewayIP: "10.77.0.1", AllowDNS: true, AllowProxy: true, RDNSMode: 2})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.IPRanges.Create(&entity.IPRangeParams{Type: "dynamic", StartIP: "10.77.0.100", EndIP: "10.77.0.150", Subnet: fmt.Sprint(n.ID)}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.IPRanges.Create(&entity.IPRangeParams{Type: "reserved", StartIP: "10.77.0.200", EndIP: "10.77.0.254", Subnet: fmt.Sprint(n.ID), Comment: "BMCs"}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.VLAN.Update(n.VLAN.FabricID, n.VLAN.VID, &entity.VLANParams{DHCPOn: true, PrimaryRack: &rack.SystemID, MTU: 1500}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.MAASServer.Post("kernel_opts", "console=ttyS0 no_timer_check mitigations=off cryptomgr.notests"); err != nil {
		s.t.Fatal(err)
	}
}

// wait polls until ok, and fails the test with the last state that it saw.
func (s *site) wait(limit time.Duration, what string, ok func() (bool, string)) {
	s.t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := ok()
		if done {
			if d := time.Since(begun); d > time.Second {
				s.t.Logf("%5.1f s until %s", d.Seconds(), what)
			}
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("waited %s in vain until %s; last: %s", limit, what, state)
		case <-tick.C:
		}
	}
}

// ssh runs a command on a machine with the user's key, once it can be reached, and returns its output.
func (s *site) ssh(m *qemu.Machine, ip, command string, limit time.Duration) string {
	s.t.Helper()
	cfg := &ssh.ClientConfig{User: "debian", Auth: []ssh.AuthMethod{ssh.PublicKeys(s.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second}
	var out []byte
	s.wait(limit, "ssh answers: "+command, func() (bool, string) {
		c, err := ssh.Dial("tcp", ip+":22", cfg)
		if err != nil {
			return false, err.Error() + "\n" + m.Console().Tail(3000)
		}
		defer c.Close()
		sess, err := c.NewSession()
		if err != nil {
			return false, err.Error()
		}
		if out, err = sess.CombinedOutput(command); err != nil {
			return false, fmt.Sprintf("%v: %s", err, bytes.TrimSpace(out))
		}
		return true, ""
	})
	return strings.TrimSpace(string(out))
}
