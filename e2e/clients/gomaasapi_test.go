package clients

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	maas "github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	"github.com/juju/gomaasapi/v2"
)

// TestMainJobGomaasapi carries a lab machine through allocate, deploy and release with Juju's library, the strictest reader of all.
func TestMainJobGomaasapi(t *testing.T) {
	s := dev(t, 2)
	ctl, err := gomaasapi.NewController(gomaasapi.ControllerArgs{BaseURL: s.url, APIKey: s.key})
	if err != nil {
		t.Fatal(err)
	}
	if !ctl.Capabilities().Contains(gomaasapi.NetworkDeploymentUbuntu) {
		t.Fatalf("capabilities: %v", ctl.Capabilities())
	}
	for name, list := range map[string]func() (int, error){
		"zones":          func() (int, error) { v, err := ctl.Zones(); return len(v), err },
		"fabrics":        func() (int, error) { v, err := ctl.Fabrics(); return len(v), err },
		"domains":        func() (int, error) { v, err := ctl.Domains(); return len(v), err },
		"boot resources": func() (int, error) { v, err := ctl.BootResources(); return len(v), err },
	} {
		if n, err := list(); err != nil || n == 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	if _, err := ctl.Spaces(); err != nil {
		t.Errorf("spaces: %v", err)
	}
	if _, err := ctl.Tags(); err != nil {
		t.Errorf("tags: %v", err)
	}

	// Juju does not commission; an operator does, here with the other client.
	admin, err := maas.GetClient(s.url, s.key, "2.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.SSHKeys.Create(sshPublicKey(t)); err != nil {
		t.Fatal(err)
	}
	count := func(status string) (n int, all []gomaasapi.Machine) {
		all, err := ctl.Machines(gomaasapi.MachinesArgs{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			if m.StatusName() == status && m.PowerState() == "off" {
				n++
			}
		}
		return n, all
	}
	var all []gomaasapi.Machine
	waitFor(t, 90*time.Second, "two machines have enlisted themselves", func() (bool, string) {
		var n int
		n, all = count("New")
		return n >= 2, fmt.Sprintf("%d of %d", n, len(all))
	})
	for _, m := range all {
		if _, err := admin.Machine.Commission(m.SystemID(), &entity.MachineCommissionParams{}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, 90*time.Second, "two machines are Ready", func() (bool, string) {
		n, all := count("Ready")
		return n >= 2, fmt.Sprintf("%d of %d", n, len(all))
	})

	_, _, err = ctl.AllocateMachine(gomaasapi.AllocateMachineArgs{MinMemory: 1 << 30})
	if !gomaasapi.IsNoMatchError(err) {
		t.Fatalf("allocate of the impossible: %v", err)
	}
	m, _, err := ctl.AllocateMachine(gomaasapi.AllocateMachineArgs{MinMemory: 512, MinCPUCount: 1, Architecture: "amd64", AgentName: "juju-model"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ctl.Machines(gomaasapi.MachinesArgs{AgentName: "juju-model"}); err != nil || len(got) != 1 || got[0].SystemID() != m.SystemID() {
		t.Fatalf("machines of the model: %v, %v", got, err)
	}
	if err := m.Start(gomaasapi.StartArgs{UserData: base64.StdEncoding.EncodeToString([]byte("#cloud-config\n{}\n")), DistroSeries: deployable(t, admin)}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 90*time.Second, "the machine is Deployed", func() (bool, string) {
		all, err := ctl.Machines(gomaasapi.MachinesArgs{SystemIDs: []string{m.SystemID()}})
		if err != nil || len(all) != 1 {
			t.Fatalf("read: %d machines, %v", len(all), err)
		}
		state := all[0].StatusName() + ", " + all[0].StatusMessage()
		if s := all[0].StatusName(); s != "Deploying" && s != "Deployed" {
			t.Fatalf("on the way to Deployed the machine is %s", state)
		}
		return all[0].StatusName() == "Deployed", state
	})
	if err := m.SetOwnerData(map[string]string{"juju-controller-uuid": "e2e"}); err != nil {
		t.Fatal(err)
	}
	if err := ctl.ReleaseMachines(gomaasapi.ReleaseMachinesArgs{SystemIDs: []string{m.SystemID()}, Comment: "done"}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 90*time.Second, "the machine is Ready again", func() (bool, string) {
		n, _ := count("Ready")
		return n >= 2, fmt.Sprintf("%d Ready and off", n)
	})
}
