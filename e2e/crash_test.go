package e2e

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/lab"
)

// deploySteps are the machine's steps during a deployment, in order.
var deploySteps = []string{
	"firmware", "dhcp", "loader", "config", "kernel", "preseed", "task", "partitioning", "extract", "curthooks", "netboot_off", "signal-ok",
	"first-boot", "user-data", "final",
}

// killer kills the server when a machine comes to an armed step, once.
type killer struct {
	mu    sync.Mutex
	armed string
	site  *site
	hit   chan struct{}
}

func (k *killer) arm(step string) chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed, k.hit = step, make(chan struct{})
	return k.hit
}

func (k *killer) before(_, step string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.armed == "" || k.armed != step {
		return
	}
	k.armed = ""
	k.site.server.kill()
	close(k.hit)
}

// TestKillAtEachStep kills the server with SIGKILL at each step of a deployment and starts it again. The machine must end Deployed,
// or in a failed state that says why; it must never stay where it is.
func TestKillAtEachStep(t *testing.T) {
	steps := deploySteps
	if testing.Short() {
		steps = []string{"kernel", "extract", "netboot_off", "user-data"}
	}
	k := &killer{}
	s := newSite(t, siteOptions{machines: 1, firmwares: []lab.Firmware{lab.BIOSiPXE}, before: k.before})
	k.site = s
	m := s.lab.Machines[0]
	id := s.enlist(m)
	s.commission(id)
	// A machine whose network boot found no server may have started what its disk held before. Then nothing but the deadline ends its
	// deployment; two minutes instead of an hour.
	if _, err := s.client.MaasSetConfig(t.Context(), api.MaasSetConfigParams{Name: "node_timeout", Value: "1"}); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		s.allocate(id)
		hit := k.arm(step)
		answer := s.deployAsync(id)
		select {
		case <-hit:
		case <-time.After(60 * time.Second):
			t.Fatalf("the machine never came to %s: it is %s, %s", step, m.State(), state(s.read(id)))
		}
		// The machine may be at its first steps before the answer is out: it is lost with the server then. A refusal is another thing.
		if e := new(client.Error); errors.As(<-answer, &e) {
			t.Fatalf("deploy before %s: %v", step, e)
		}
		begin := time.Now()
		s.server.run()
		s.waitReady()
		poll(t, 4*time.Minute, "the deployment that was hit at "+step+" came to an end", func() (bool, string) {
			x := s.read(id)
			switch {
			case x.StatusName == "Deployed":
				return true, ""
			case strings.HasPrefix(x.StatusName, "Failed"):
				if x.ErrorDescription == "" {
					t.Fatalf("killed at %s: failed without a reason: %s", step, state(x))
				}
				return true, ""
			}
			return false, state(x)
		})
		x := s.read(id)
		t.Logf("killed at %-12s -> %s after %.1f s %s", step, x.StatusName, time.Since(begin).Seconds(), x.ErrorDescription)
		s.release(id, false)
	}
}

// TestKillDuringRelease does the same while disks are erased: Ready must mean erased.
func TestKillDuringRelease(t *testing.T) {
	k := &killer{}
	s := newSite(t, siteOptions{machines: 1, firmwares: []lab.Firmware{lab.UEFITFTP}, before: k.before})
	k.site = s
	m := s.lab.Machines[0]
	id := s.enlist(m)
	s.commission(id)
	for _, step := range []string{"kernel", "erase", "signal-ok"} {
		s.allocate(id)
		s.deploy(id)
		s.reach(id, "Deployed", 60*time.Second, "Deploying")
		hit := k.arm(step)
		go s.releaseAsync(id)
		select {
		case <-hit:
		case <-time.After(60 * time.Second):
			t.Fatalf("the machine never came to %s: %s", step, m.State())
		}
		s.server.run()
		s.waitReady()
		s.reach(id, "Ready", 120*time.Second, "Disk erasing", "Releasing")
		if m.Disk("vda").Contains("EFI PART") {
			t.Fatalf("killed at %s: Ready with the old disk", step)
		}
	}
}

// releaseAsync asks for a release; the answer may be lost with the server.
func (s *site) deployAsync(id string) <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, err := s.client.MachineDeploy(s.t.Context(), deployParams(id))
		answer <- err
	}()
	return answer
}

func (s *site) releaseAsync(id string) {
	_, _ = s.client.MachineRelease(s.t.Context(), releaseErase(id))
}

// TestMachineDies: the machine itself hangs in the middle. The deadline is long, so the operator aborts, and may deploy again.
func TestMachineDies(t *testing.T) {
	s := newSite(t, siteOptions{machines: 1, firmwares: []lab.Firmware{lab.BIOSPXE}})
	m := s.lab.Machines[0]
	id := s.enlist(m)
	s.commission(id)
	s.allocate(id)
	m.SetFaults(lab.Faults{DieAt: "extract", DieTimes: 1})
	s.deploy(id)
	poll(t, 60*time.Second, "the machine hangs", func() (bool, string) { return m.State() == lab.StateHung, m.State() })
	if x := s.read(id); x.StatusName != "Deploying" {
		t.Fatalf("the machine that hangs is %s", state(x))
	}
	s.abort(id)
	s.reach(id, "Allocated", 30*time.Second, "Deploying")
	s.deploy(id)
	s.reach(id, "Deployed", 60*time.Second, "Deploying")
}

// TestStepFails: what the agent reports as failed is a failed deployment with the agent's words.
func TestStepFails(t *testing.T) {
	s := newSite(t, siteOptions{machines: 1, firmwares: []lab.Firmware{lab.UEFIHTTP}})
	m := s.lab.Machines[0]
	id := s.enlist(m)
	s.commission(id)
	s.allocate(id)
	m.SetFaults(lab.Faults{FailAt: "curthooks"})
	s.deploy(id)
	x := s.reach(id, "Failed deployment", 60*time.Second, "Deploying")
	if !strings.Contains(x.ErrorDescription, "fault") && !strings.Contains(state(x), "fault") {
		t.Fatalf("the reason is lost: %s", state(x))
	}
	m.SetFaults(lab.Faults{})
	s.release(id, false)
}

// TestDeadline: a machine that hangs and that nobody looks after ends in a failed state that says why.
func TestDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a deadline of minutes")
	}
	s := newSite(t, siteOptions{machines: 1, firmwares: []lab.Firmware{lab.BIOSiPXE}})
	m := s.lab.Machines[0]
	id := s.enlist(m)
	s.commission(id)
	if _, err := s.client.MaasSetConfig(t.Context(), api.MaasSetConfigParams{Name: "node_timeout", Value: "1"}); err != nil {
		t.Fatal(err)
	}
	s.allocate(id)
	m.SetFaults(lab.Faults{DieAt: "extract"})
	s.deploy(id)
	x := s.reach(id, "Failed deployment", 4*time.Minute, "Deploying")
	if x.ErrorDescription == "" {
		t.Fatalf("failed without a reason: %s", state(x))
	}
	t.Log(x.ErrorDescription)
	m.SetFaults(lab.Faults{})
	s.release(id, false)
}
