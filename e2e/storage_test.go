package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab"
)

// runs waits until the system of a lab machine runs.
func (s *site) runs(m *lab.Machine) *lab.System {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	if err := m.Wait(ctx, func(m *lab.Machine) bool { return m.System() != nil }); err != nil {
		s.t.Fatal(err)
	}
	return m.System()
}

// again switches a machine off and on.
func (s *site) again(id string, m *lab.Machine) *lab.System {
	s.t.Helper()
	if _, err := s.client.MachinePowerOff(s.t.Context(), api.MachinePowerOffParams{SystemID: id}); err != nil {
		s.t.Fatal(err)
	}
	poll(s.t, 30*time.Second, "the machine is off", func() (bool, string) { return !m.On(), m.State() })
	if _, err := s.client.MachinePowerOn(s.t.Context(), api.MachinePowerOnParams{SystemID: id}); err != nil {
		s.t.Fatal(err)
	}
	return s.runs(m)
}

// verdicts are how a machine's boots ended, the oldest first.
func (s *site) verdicts(id string) (out []string) {
	s.t.Helper()
	boots, err := s.client.IngotMachineTimelineRead(s.t.Context(), api.IngotMachineTimelineReadParams{SystemID: id})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, b := range boots {
		out = append([]string{b.Verdict}, out...)
	}
	return out
}

// TestStorage carries machines through their lives with storage beyond one disk: what is modelled is on their disks, they start from it again, and each
// boot's timeline says how it ended.
func TestStorage(t *testing.T) {
	s := newSite(t, siteOptions{machines: 3, disks: 3, firmwares: []lab.Firmware{lab.BIOSPXE, lab.UEFITFTP, lab.BIOSiPXE}})
	ctx := t.Context()
	var ids []string
	for _, m := range s.lab.Machines {
		id := s.enlist(m)
		s.commission(id)
		ids = append(ids, id)
	}
	layout := func(id, name string) {
		t.Helper()
		if _, err := s.client.MachineSetStorageLayout(ctx, api.MachineSetStorageLayoutParams{SystemID: id, StorageLayout: name}); err != nil {
			t.Fatal(err)
		}
	}
	part := func(id, disk, size string, bootable bool) string {
		t.Helper()
		p, err := s.client.PartitionsCreate(ctx, api.PartitionsCreateParams{SystemID: id, DeviceID: disk, Size: &size, Bootable: &bootable})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(p.ID)
	}
	// BIOS: a volume group. UEFI: a mirrored root, and a copy of the EFI system partition. The third runs in memory.
	layout(ids[0], "lvm")
	layout(ids[1], "blank")
	efi := part(ids[1], "vda", "512M", true)
	copied := part(ids[1], "vdb", "512M", true)
	mirror, err := s.client.RaidsCreate(ctx, api.RaidsCreateParams{SystemID: ids[1], Name: ptr("md0"), Level: "raid-1",
		Partitions: []string{part(ids[1], "vda", "10G", false), part(ids[1], "vdb", "10G", false)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{efi, copied} {
		disk := map[string]string{efi: "vda", copied: "vdb"}[p]
		if _, err := s.client.PartitionFormat(ctx, api.PartitionFormatParams{SystemID: ids[1], DeviceID: disk, ID: p, Fstype: "fat32"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.client.PartitionMount(ctx, api.PartitionMountParams{SystemID: ids[1], DeviceID: "vda", ID: efi, MountPoint: ptr("/boot/efi")}); err != nil {
		t.Fatal(err)
	}
	md := fmt.Sprint(mirror.VirtualDevice.ID)
	if _, err := s.client.BlockDeviceFormat(ctx, api.BlockDeviceFormatParams{SystemID: ids[1], ID: md, Fstype: "ext4"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.BlockDeviceMount(ctx, api.BlockDeviceMountParams{SystemID: ids[1], ID: md, MountPoint: ptr("/")}); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		s.allocate(id)
		if _, err := s.client.MachineDeploy(ctx, api.MachineDeployParams{SystemID: id, DistroSeries: ptr("custom/lab"), EphemeralDeploy: ptr(i == 2)}); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(m int, disk, text string, want bool) {
		t.Helper()
		if got := s.lab.Machines[m].Disk(disk).Contains(text); got != want {
			t.Errorf("machine %d: %s holds %q: %v, want %v", m, disk, text, got, want)
		}
	}
	for i, id := range ids {
		x := s.reach(id, "Deployed", 60*time.Second, "Deploying")
		s.runs(s.lab.Machines[i])
		if x.EphemeralDeploy != (i == 2) || x.Netboot != (i == 2) {
			t.Errorf("machine %d: ephemeral_deploy %v, netboot %v", i, x.EphemeralDeploy, x.Netboot)
		}
	}
	holds(0, "vda", "LABELONE", true)
	holds(0, "vda", "metadata_url", true)
	holds(1, "vda", "metadata_url", true)
	holds(1, "vdb", "metadata_url", true)
	holds(1, "vdb", "bootx64.efi", true)
	for i, m := range s.lab.Machines {
		if m.Disk("vdc").Written() > 0 || i == 2 && m.Disk("vda").Written() > 0 {
			t.Errorf("machine %d: a disk was written that nothing is modelled on", i)
		}
	}
	for i, id := range ids {
		if sys := s.again(id, s.lab.Machines[i]); sys.FirstBoot != (i == 2) {
			t.Errorf("machine %d: the second boot was a first one: %v", i, sys.FirstBoot)
		}
		s.reach(id, "Deployed", 20*time.Second)
	}
	// The mirrored machine starts without its first disk.
	s.lab.Machines[1].PowerOff()
	s.lab.Machines[1].Disk("vda").Zero(0, 20<<30)
	s.lab.Machines[1].PowerOn()
	s.runs(s.lab.Machines[1])
	for i, id := range ids {
		if _, err := s.client.MachineRelease(ctx, api.MachineReleaseParams{SystemID: id, SecureErase: ptr(true), QuickErase: ptr(true)}); err != nil {
			t.Fatal(err)
		}
		s.reach(id, "Ready", 60*time.Second, "Releasing", "Disk erasing")
		for _, disk := range []string{"vda", "vdb", "vdc"} {
			holds(i, disk, "EFI PART", false)
			holds(i, disk, "LABELONE", false)
		}
		var verdicts []string
		poll(t, 30*time.Second, "all boots have ended", func() (bool, string) {
			verdicts = s.verdicts(id)
			return !slices.Contains(verdicts, ""), fmt.Sprintf("%q", verdicts)
		})
		// Before is how the machine enlisted itself and was commissioned and tested.
		before := slices.IndexFunc(verdicts, func(v string) bool { return strings.HasPrefix(v, "ok: installed") || v == "ok: deployed to memory" })
		if before < 1 || slices.ContainsFunc(verdicts[:before], func(v string) bool { return !strings.HasPrefix(v, "ok: ") }) {
			t.Fatalf("machine %d: boots ended %q", i, verdicts)
		}
		verdicts = verdicts[before:]
		want := []string{"ok: installed, the disk is next", "ok: deployed", "ok: started from its disk", "ok: disks erased"}
		if i == 2 {
			want = []string{"ok: deployed to memory", "ok: started in memory", "ok: disks erased"}
		}
		if got := strings.Join(slices.Compact(verdicts), "\n"); got != strings.Join(slices.Compact(want), "\n") {
			t.Errorf("machine %d: boots ended\n%s\nwant\n%s", i, got, strings.Join(want, "\n"))
		}
	}
}
