package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/entity"
)

// certificate makes a self-signed one.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// until waits for a machine's status, passing through others, and returns the machine.
func (w *walk) until(id, want string, through ...string) *entity.Machine {
	w.t.Helper()
	var m *entity.Machine
	waitFor(w.t, 90*time.Second, id+" is "+want, func() (bool, string) {
		m = get[*entity.Machine](w, "Machine.Get", id)
		state := m.StatusName + ", power " + m.PowerState + ", " + m.StatusMessage
		if m.StatusName != want && !slices.Contains(through, m.StatusName) {
			w.t.Fatalf("on the way to %s, %s is %s", want, id, state)
		}
		return m.StatusName == want, state
	})
	return m
}

// powered waits for a machine's power.
func (w *walk) powered(id, want string) {
	w.t.Helper()
	waitFor(w.t, 60*time.Second, id+" is "+want, func() (bool, string) {
		m := get[*entity.Machine](w, "Machine.Get", id)
		return m.PowerState == want, m.PowerState
	})
}

// labMachines waits until the lab machines have enlisted themselves and returns them by name.
func (w *walk) labMachines(n int) (all []entity.Machine) {
	w.t.Helper()
	waitFor(w.t, 90*time.Second, "the lab machines have enlisted themselves", func() (bool, string) {
		all = slices.DeleteFunc(get[[]entity.Machine](w, "Machines.Get", &entity.MachinesParams{}), func(m entity.Machine) bool {
			return m.StatusName != "New" || m.PowerState != "off" || m.BootInterface.MACAddress == "" || !strings.HasPrefix(m.BootInterface.MACAddress, "52:54:00:77:")
		})
		return len(all) == n, fmt.Sprintf("%d of %d", len(all), n)
	})
	slices.SortFunc(all, func(a, b entity.Machine) int {
		return strings.Compare(a.BootInterface.MACAddress, b.BootInterface.MACAddress)
	})
	return all
}

func walkDevices(w *walk) {
	d := get[*entity.Device](w, "Devices.Create", &entity.DeviceCreateParams{Hostname: "walk-device", Description: "two words", Zone: "default", MacAddresses: []string{"52:54:00:aa:BB:01"}})
	equal(w, "device", []any{d.Hostname, d.Description, d.Zone.Name, d.Owner, len(d.InterfaceSet)}, []any{"walk-device", "two words", "default", "admin", 1})
	equal(w, "its MAC and name", []string{d.InterfaceSet[0].MACAddress, d.InterfaceSet[0].Name}, []string{"52:54:00:aa:BB:01", "eth0"})
	get[*entity.Device](w, "Device.Update", d.SystemID, &entity.DeviceUpdateParams{Hostname: "walk-device-2", Description: "d"})
	equal(w, "device read", get[*entity.Device](w, "Device.Get", d.SystemID).Hostname, "walk-device-2")
	equal(w, "annotations", get[*entity.Device](w, "Device.SetWorkloadAnnotations", d.SystemID, map[string]string{"app": "x"}).WorkloadAnnotations, map[string]string{"app": "x"})
	find(w, "device", get[[]entity.Device](w, "Devices.Get"), func(x entity.Device) bool { return x.SystemID == d.SystemID })
	w.do("Device.Delete", d.SystemID)
	w.refused(404, "", "Device.Get", d.SystemID)
}

func walkMachines(w *walk) {
	lab := w.labMachines(4)
	for _, m := range lab {
		get[*entity.Machine](w, "Machine.Commission", m.SystemID, &entity.MachineCommissionParams{})
	}
	var ids []string
	for _, m := range lab {
		w.until(m.SystemID, "Ready", "Commissioning", "Testing")
		ids = append(ids, m.SystemID)
	}
	w.part(w.t, "records", walkRecords)
	w.part(w.t, "life", func(w *walk) { walkLife(w, ids[0]) })
	w.part(w.t, "other states", func(w *walk) { walkStates(w, ids[1]) })
	w.part(w.t, "interfaces", func(w *walk) { walkInterfaces(w, ids[2]) })
	w.part(w.t, "storage", func(w *walk) { walkStorage(w, ids[3]) })
	w.part(w.t, "tags", func(w *walk) { walkTags(w, ids[3]) })
}

// walkRecords is what Terraform's maas_machine does to a machine that is a record only.
func walkRecords(w *walk) {
	m := get[*entity.Machine](w, "Machines.Create", &entity.MachineCreateParams{Commission: ptr(false), PowerType: "manual", MACAddresses: []string{"52:54:00:AB:cd:01"},
		Architecture: "amd64/generic", Hostname: "walk-record", Description: "two words", Domain: "maas", Zone: "default", Pool: "default"}, map[string]any{})
	equal(w, "machine", []any{m.Hostname, m.Architecture, m.Description, m.BootInterface.MACAddress, m.PowerType}, []any{"walk-record", "amd64/generic", "two words", "52:54:00:AB:cd:01", "manual"})
	m = get[*entity.Machine](w, "Machine.Update", m.SystemID, &entity.MachineUpdateParams{Commission: ptr(false), PowerType: "ipmi", MACAddresses: []string{"52:54:00:AB:cd:01"},
		Architecture: "amd64/generic", Hostname: "walk-record-2", CPUCount: 7, Memory: 2048, MinHWEKernel: ptr("")},
		map[string]any{"power_parameters_power_address": "10.0.0.9", "power_parameters_power_user": "u", "power_parameters_power_pass": "p"})
	equal(w, "machine after update", []any{m.Hostname, m.PowerType, m.CPUCount, m.Memory}, []any{"walk-record-2", "ipmi", 7, int64(2048)})
	pp := get[map[string]any](w, "Machine.GetPowerParameters", m.SystemID)
	equal(w, "power parameters", []any{pp["power_address"], pp["power_user"], pp["power_pass"]}, []any{"10.0.0.9", "u", "p"})
	w.do("Machine.Delete", m.SystemID)
	w.refused(404, "No Machine matches the given query.", "Machine.Get", m.SystemID)
}

func walkLife(w *walk, id string) {
	k := get[*entity.SSHKey](w, "SSHKeys.Create", sshPublicKey(w.t))
	defer w.do("SSHKey.Delete", k.ID)
	a := get[*entity.Machine](w, "Machines.Allocate", &entity.MachineAllocateParams{SystemID: id, AgentName: "walk"})
	equal(w, "allocated", []string{a.SystemID, a.StatusName, a.Owner}, []string{id, "Allocated", "admin"})
	find(w, "machine", get[[]entity.Machine](w, "Machines.ListAllocated"), func(m entity.Machine) bool { return m.SystemID == id })
	w.do("Machines.AcceptAll")
	equal(w, "by agent name", len(get[[]entity.Machine](w, "Machines.Get", &entity.MachinesParams{AgentName: []string{"walk"}})), 1)
	ann := get[*entity.Machine](w, "Machine.SetWorkloadAnnotations", id, map[string]string{"app": "walk", "gone": ""})
	equal(w, "annotations", ann.WorkloadAnnotations, map[string]string{"app": "walk"})
	user := base64.StdEncoding.EncodeToString([]byte("#cloud-config\n{}\n"))
	d := get[*entity.Machine](w, "Machine.Deploy", id, &entity.MachineDeployParams{UserData: user, DistroSeries: deployable(w.t, w.c)})
	equal(w, "status after deploy", d.StatusName, "Deploying")
	w.until(id, "Deployed", "Deploying")
	if tok := get[*entity.MachineToken](w, "Machine.GetToken", id); tok.TokenKey == "" || tok.TokenSecret == "" || tok.ConsumerKey == "" {
		w.t.Error("a deployed machine has no token")
	}
	if c := get[map[string]any](w, "Machine.GetCurtinConfig", id); c["storage"] == nil || c["late_commands"] == nil || c["network"] == nil {
		w.t.Errorf("curtin's configuration: %v", c)
	}
	equal(w, "locked", get[*entity.Machine](w, "Machine.Lock", id, "why").Locked, true)
	w.refused(409, "", "Machine.Lock", id, "")
	equal(w, "unlocked", get[*entity.Machine](w, "Machine.Unlock", id, "").Locked, false)
	get[*entity.Machine](w, "Machine.PowerOff", id, &entity.MachinePowerOffParams{StopMode: "hard"})
	w.powered(id, "off")
	equal(w, "queried power", get[*entity.MachinePowerState](w, "Machine.GetPowerState", id).State, "off")
	get[*entity.Machine](w, "Machine.PowerOn", id, &entity.MachinePowerOnParams{Comment: "again"})
	w.powered(id, "on")
	get[*entity.Machine](w, "Machine.Release", id, &entity.MachineReleaseParams{Comment: "done", Force: true})
	w.until(id, "Ready", "Releasing")

	get[*entity.Machine](w, "Machines.Allocate", &entity.MachineAllocateParams{SystemID: id})
	w.do("Machines.Release", []string{id}, "not needed")
	w.until(id, "Ready", "Releasing")
	w.refused(400, "", "Machines.Release", []string{id, "nobody"}, "")

	// What commissioning found out.
	det := get[*entity.MachineDetails](w, "Machine.Details", id)
	if !strings.Contains(det.LSHW, "<node") {
		w.t.Errorf("lshw: %.80q", det.LSHW)
	}
	for _, x := range get[[]entity.NodeResult](w, "NodeResults.Get", id, &entity.NodeResultParams{IncludeOutput: true}) {
		if x.SystemID != id || len(x.Results) == 0 {
			w.t.Errorf("result %+v", x)
		}
	}
	devs := get[[]entity.NodeDevice](w, "NodeDevices.Get", id, &entity.NodeDeviceParams{})
	nic := find(w, "PCI device", devs, func(x entity.NodeDevice) bool { return x.VendorID == "1af4" && x.Bus == entity.PCIE })
	equal(w, "node device", get[*entity.NodeDevice](w, "NodeDevice.Get", id, nic.ID).PCIAddress, nic.PCIAddress)
	w.do("NodeDevice.Delete", id, nic.ID)
	w.refused(404, "", "NodeDevice.Get", id, nic.ID)
}

func walkStates(w *walk, id string) {
	get[*entity.Machine](w, "Machine.Commission", id, &entity.MachineCommissionParams{})
	equal(w, "status after abort", get[*entity.Machine](w, "Machine.Abort", id, "changed my mind").StatusName, "New")
	w.powered(id, "off")
	get[*entity.Machine](w, "Machine.Commission", id, &entity.MachineCommissionParams{})
	w.until(id, "Ready", "Commissioning", "Testing")
	w.refused(403, "", "Machine.MarkBroken", id, "not mine")
	get[*entity.Machine](w, "Machines.Allocate", &entity.MachineAllocateParams{SystemID: id})
	equal(w, "broken", get[*entity.Machine](w, "Machine.MarkBroken", id, "smokes").StatusName, "Broken")
	equal(w, "fixed", get[*entity.Machine](w, "Machine.MarkFixed", id, "").StatusName, "Ready")
	get[*entity.Machine](w, "Machine.RescueMode", id)
	w.until(id, "Rescue mode", "Entering rescue mode")
	get[*entity.Machine](w, "Machine.ExitRescueMode", id)
	w.until(id, "Ready", "Exiting rescue mode")
	w.powered(id, "off")
	w.refused(409, "", "Machine.Abort", id, "")
}

func walkTags(w *walk, id string) {
	g := get[*entity.Tag](w, "Tags.Create", &entity.TagParams{Name: "walk-tag", Comment: "two words", KernelOpts: "quiet splash"})
	equal(w, "tag", []string{g.Name, g.Comment, g.KernelOpts}, []string{"walk-tag", "two words", "quiet splash"})
	get[*entity.Tag](w, "Tag.Update", "walk-tag", &entity.TagParams{Name: "walk-tag-2", Comment: "c"})
	equal(w, "tag read", get[*entity.Tag](w, "Tag.Get", "walk-tag-2").Comment, "c")
	find(w, "tag", get[[]entity.Tag](w, "Tags.Get"), func(x entity.Tag) bool { return x.Name == "walk-tag-2" })
	w.do("Tag.AddMachines", "walk-tag-2", []string{id})
	equal(w, "tagged", get[[]entity.Machine](w, "Tag.GetMachines", "walk-tag-2")[0].SystemID, id)
	w.do("Tag.RemoveMachines", "walk-tag-2", []string{id})
	equal(w, "untagged", len(get[[]entity.Machine](w, "Tag.GetMachines", "walk-tag-2")), 0)
	w.do("Tag.Delete", "walk-tag-2")
	w.refused(404, "", "Tag.Get", "walk-tag-2")
	get[*entity.Tag](w, "Tags.Create", &entity.TagParams{Name: "walk-cpu", Definition: `//node[@class="processor"]`})
	waitFor(w.t, 30*time.Second, "the definition has found the machines", func() (bool, string) {
		n := len(get[[]entity.Machine](w, "Tag.GetMachines", "walk-cpu"))
		return n == 4, fmt.Sprint(n)
	})
	w.do("Tag.Delete", "walk-cpu")
}
