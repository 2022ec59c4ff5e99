package clients

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	maas "github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
)

// sshPublicKey makes an authorized_keys line of a fresh ed25519 key (RFC 8709).
func sshPublicKey(t *testing.T) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var blob []byte
	for _, part := range [][]byte{[]byte("ssh-ed25519"), pub} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part)))
		blob = append(blob, part...)
	}
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + " e2e@ingot"
}

// deployable returns the name that deploy takes for the newest image that is not Ingot's own ephemeral environment.
func deployable(t *testing.T, c *maas.Client) string {
	t.Helper()
	all, err := c.BootResources.Get(&entity.BootResourcesReadParams{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if !strings.HasPrefix(r.Name, "ingot/") {
			return r.Name
		}
	}
	t.Fatalf("no deployable image among %+v", all)
	return ""
}

// TestMainJobGomaasclient carries a lab machine through its whole life with the client of the Terraform provider.
func TestMainJobGomaasclient(t *testing.T) {
	s := dev(t, 3)
	c, err := maas.GetClient(s.url, s.key, "2.0")
	if err != nil {
		t.Fatal(err)
	}
	if who, err := c.Users.Whoami(); err != nil || !who.IsSuperUser {
		t.Fatalf("whoami: %+v, %v", who, err)
	}
	key, err := c.SSHKeys.Create(sshPublicKey(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.SSHKey.Delete(key.ID); err != nil {
			t.Error(err)
		}
	}()

	status := func(id string) (*entity.Machine, string) {
		m, err := c.Machine.Get(id)
		if err != nil {
			t.Fatalf("read %s: %v", id, err)
		}
		return m, fmt.Sprintf("%s (power %s) %s %s", m.StatusName, m.PowerState, m.StatusMessage, m.Description)
	}
	waitStatus := func(id, want string, through ...string) {
		t.Helper()
		waitFor(t, 90*time.Second, id+" is "+want, func() (bool, string) {
			m, state := status(id)
			if m.StatusName == want {
				return true, state
			}
			if !slices.Contains(through, m.StatusName) {
				t.Fatalf("on the way to %s the machine is %s", want, state)
			}
			return false, state
		})
	}

	var enlisted []entity.Machine
	waitFor(t, 90*time.Second, "three machines have enlisted themselves", func() (bool, string) {
		enlisted, err = c.Machines.Get(&entity.MachinesParams{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range enlisted {
			if m.StatusName == "New" && m.PowerState == "off" {
				n++
			}
		}
		return n >= 3, fmt.Sprintf("%d of %d", n, len(enlisted))
	})
	for _, m := range enlisted {
		if _, err := c.Machine.Commission(m.SystemID, &entity.MachineCommissionParams{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range enlisted {
		waitStatus(m.SystemID, "Ready", "Commissioning", "Testing")
	}

	one, _ := status(enlisted[0].SystemID)
	if one.CPUCount < 1 || one.Memory < 1 || len(one.BlockDeviceSet) < 1 || len(one.InterfaceSet) < 1 || one.BootDisk.Name == "" {
		t.Fatalf("commissioning left the inventory empty: %+v", one)
	}

	// Nothing fits: 409 with MAAS's text.
	_, err = c.Machines.Allocate(&entity.MachineAllocateParams{Mem: 1 << 40})
	if err == nil || !strings.Contains(err.Error(), "No available machine matches constraints") {
		t.Fatalf("allocate of the impossible: %v", err)
	}
	params := &entity.MachineAllocateParams{Mem: 512, CPUCount: 1, Arch: "amd64", Zone: "default", Pool: "default", AgentName: "e2e"}
	got, err := c.Machines.Allocate(params)
	if err != nil {
		t.Fatal(err)
	}
	if got.StatusName != "Allocated" || got.Owner != "admin" {
		t.Fatalf("allocated: %s, owner %q", got.StatusName, got.Owner)
	}
	other, err := c.Machines.Allocate(params)
	if err != nil {
		t.Fatal(err)
	}
	if other.SystemID == got.SystemID {
		t.Fatalf("%s was handed out twice", got.SystemID)
	}
	if err := c.Machines.Release([]string{other.SystemID}, "not needed"); err != nil {
		t.Fatal(err)
	}

	user := base64.StdEncoding.EncodeToString([]byte("#cloud-config\nruncmd: [touch /e2e]\n"))
	if _, err := c.Machine.Deploy(got.SystemID, &entity.MachineDeployParams{UserData: user, DistroSeries: deployable(t, c)}); err != nil {
		t.Fatal(err)
	}
	waitStatus(got.SystemID, "Deployed", "Deploying")
	m, _ := status(got.SystemID)
	if len(m.IPAddresses) == 0 || m.IPAddresses[0] == nil {
		t.Fatalf("a deployed machine has no address: %+v", m.IPAddresses)
	}
	if _, err := c.Machine.Lock(got.SystemID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Machine.Release(got.SystemID, &entity.MachineReleaseParams{}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("release of a locked machine: %v", err)
	}
	if _, err := c.Machine.Unlock(got.SystemID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Machine.Release(got.SystemID, &entity.MachineReleaseParams{Erase: true, QuickErase: true}); err != nil {
		t.Fatal(err)
	}
	waitStatus(got.SystemID, "Ready", "Disk erasing", "Releasing")
	if m, _ := status(got.SystemID); m.Owner != "" || m.PowerState != "off" {
		t.Fatalf("after release: owner %q, power %s", m.Owner, m.PowerState)
	}
	// Releasing again what is Ready changes nothing.
	if _, err := c.Machine.Release(got.SystemID, &entity.MachineReleaseParams{}); err != nil {
		t.Fatalf("second release: %v", err)
	}
	waitStatus(got.SystemID, "Ready")
}
