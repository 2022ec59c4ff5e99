package provisioner

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// commission commissions a machine whose scripts wrote a storage configuration; nil: none.
func (x *site) commission(id string, extra any) {
	x.t.Helper()
	x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
	x.job(id, api.PowerResult{State: "on"})
	b := x.get(id)
	var doc map[string]any
	if err := json.Unmarshal(testInventory(b.Interfaces[0].MACAddress, "10.1.9.9", "bios", 2, 4096), &doc); err != nil {
		x.t.Fatal(err)
	}
	if extra != nil {
		doc["storage-extra"] = extra
	}
	inv, err := json.Marshal(doc)
	if err != nil {
		x.t.Fatal(err)
	}
	zero := int64(0)
	x.signal(id, Signal{Status: "WORKING"})
	x.signal(id, Signal{Status: "WORKING", Name: InventoryScript, ExitStatus: &zero, Files: map[string][]byte{InventoryScript: inv, InventoryScript + ".out": inv}})
	x.signal(id, Signal{Status: "OK"})
	x.job(id, api.PowerResult{State: "off"})
}

// brief is a machine's storage in words.
func brief(b *storage.Bundle) string {
	var out []string
	at := func(f *storage.Filesystem) string {
		if f == nil {
			return ""
		}
		return fmt.Sprintf("(%s %s)", f.Fstype, deref(f.MountPoint, ""))
	}
	for _, d := range b.Disks {
		text := DiskName(b, d) + at(d.Filesystem)
		for _, p := range d.Partitions {
			text += fmt.Sprintf(" %d%s", p.Number, at(p.Filesystem))
		}
		out = append(out, text)
	}
	for _, f := range b.Special {
		out = append(out, f.Fstype+" "+deref(f.MountPoint, ""))
	}
	return strings.Join(out, "; ")
}

// planned is a plan in words: devices in their order, with what is on them.
func planned(p *api.InstallPlan) string {
	var out []string
	on, at := map[string]api.StorageItem{}, map[string]string{}
	for _, it := range p.Storage {
		switch it.Type {
		case api.StorageFormat:
			on[it.Volume] = it
		case api.StorageMount:
			at[it.Device] = it.Path
		}
	}
	for _, it := range p.Storage {
		if it.Type == api.StorageFormat || it.Type == api.StorageMount {
			continue
		}
		text := it.ID
		if f, ok := on[it.ID]; ok {
			text += fmt.Sprintf("(%s %s)", f.FSType, at[f.ID])
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func (x *site) events(id, typ string) (texts []string) {
	x.t.Helper()
	x.write(func(tx *storage.Tx) error {
		rows, err := tx.Query(`select description from events where system_id = $1 and type = $2 order by id`, id, typ)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return err
			}
			texts = append(texts, text)
		}
		return rows.Err()
	})
	return texts
}

// TestCommissionedLayout: after commissioning a machine has the layout of the setting, or the one that its scripts wrote.
func TestCommissionedLayout(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		id := x.ready("bios")
		setting := func(name string) {
			t.Helper()
			if err := x.s.SetConfig(x.as(x.admin), "default_storage_layout", name); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			setting string
			extra   any
			status  storage.NodeStatus
			want    string
			event   string
		}{
			{"flat", nil, storage.StatusReady, "vda 2(ext4 /)", ""},
			{"lvm", nil, storage.StatusReady, "vda 2(lvm-pv ); vgroot-lvroot(ext4 /)", ""},
			{"bcache", nil, storage.StatusReady, "vda 2(ext4 /)", ""}, // without a cache disk
			{"blank", nil, storage.StatusReady, "vda", ""},
			{"vmfs7", nil, storage.StatusReady, "vda", "Cannot apply the layout vmfs7: Boot disk must be at least 32Gb."},
			{"custom", nil, storage.StatusReady, "vda", "Cannot apply the layout custom: No custom storage layout configuration found"},
			{"lvm", map[string]any{"layout": map[string]any{"vda": map[string]any{"type": "disk", "ptable": "gpt", "boot": true, "partitions": []any{
				map[string]any{"name": "root", "size": "5G", "fs": "ext4"}, map[string]any{"name": "data", "size": "1G", "fs": "ext4"}}},
				"t": map[string]any{"type": "special", "fs": "tmpfs"}},
				"mounts": map[string]any{"/": map[string]any{"device": "root"}, "/t": map[string]any{"device": "t"}}}, storage.StatusReady,
				"vda 2(ext4 /) 3(ext4 ); tmpfs /t", ""},
			{"flat", map[string]any{"layout": map[string]any{"vdq": map[string]any{"type": "disk"}}, "mounts": map[string]any{}}, storage.StatusReady,
				"vda", "Cannot apply custom layout: Unknown disk(s): vdq"},
			{"flat", map[string]any{"layout": "no"}, storage.StatusFailedCommissioning, "vda", ""},
			{"flat", nil, storage.StatusReady, "vda 2(ext4 /)", ""},
		} {
			setting(c.setting)
			before := len(x.events(id, "CONFIGURING_STORAGE"))
			x.commission(id, c.extra)
			b := x.status(id, c.status)
			if got := brief(b); got != c.want {
				t.Errorf("%s: %s, want %s", c.setting, got, c.want)
			}
			events := x.events(id, "CONFIGURING_STORAGE")[before:]
			if c.event == "" && len(events) > 0 || c.event != "" && (len(events) != 1 || events[0] != c.event) {
				t.Errorf("%s: events %q, want %q", c.setting, events, c.event)
			}
		}
	})
}

// TestCustomLayoutAgain: what the scripts wrote can be had again, and is when the storage is restored.
func TestCustomLayoutAgain(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("bios")
	ctx := x.as(x.admin)
	x.commission(id, map[string]any{"layout": map[string]any{"vg": map[string]any{"type": "lvm", "members": []any{"vda"}, "volumes": []any{
		map[string]any{"name": "lv", "size": "1G", "fs": "xfs"}}}}, "mounts": map[string]any{"/": map[string]any{"device": "lv"}}})
	const want = "vda(lvm-pv ); vg-lv(xfs /)"
	if got := brief(x.get(id)); got != want {
		t.Fatal(got)
	}
	if b := x.must(x.s.SetStorageLayout(ctx, id, "flat", layout.Options{})); brief(b) != "vda 2(ext4 /)" {
		t.Fatal(brief(b))
	}
	if b := x.must(x.s.SetStorageLayout(ctx, id, "custom", layout.Options{})); brief(b) != want {
		t.Fatal(brief(b))
	}
	x.must(x.s.SetStorageLayout(ctx, id, "blank", layout.Options{}))
	if b := x.must(x.s.RestoreStorage(ctx, id)); brief(b) != want {
		t.Fatal(brief(b))
	}
}

// TestLentStorage: whoever has a machine changes file systems of its own. They are installed, and end with the release.
func TestLentStorage(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		id := x.ready("uefi")
		user := x.as(x.user)
		device := x.get(id).Disks[0].Name
		root := StorageTarget{Device: device, Partition: device + "-part2"}
		const given = "vda 1(fat32 /boot/efi) 2(ext4 /)"
		if got := brief(x.get(id)); got != given {
			t.Fatal(got)
		}
		if _, err := x.s.Allocate(user, AllocateRequest{}); err != nil {
			t.Fatal(err)
		}
		for _, step := range []func() error{
			func() error { _, _, err := x.s.Unmount(user, id, root); return err },
			func() error { _, _, err := x.s.Format(user, id, root, FormatInput{Fstype: "ext2"}); return err },
			func() error { at := "/"; _, _, err := x.s.Mount(user, id, root, &at, nil); return err },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		const mine = "vda 1(fat32 /boot/efi) 2(ext2 /)"
		look := func(what, want string) {
			t.Helper()
			if got := brief(x.get(id)); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		look("allocated", mine)
		x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "custom/debian"}))
		look("deploying", mine)
		if _, _, err := x.s.MachineCredentials(user, id); err != nil {
			t.Fatal(err)
		}
		task, err := x.s.Task(user, x.get(id).Node.ID, "http://rack/MAAS/metadata/")
		if err != nil {
			t.Fatal(err)
		}
		if got := planned(task.Install); got != "vda vda-part1(vfat /boot/efi) vda-part2(ext2 /)" {
			t.Errorf("planned %s", got)
		}
		for _, it := range task.Install.Storage {
			if it.FSType == "vfat" && !layout.IsVolumeID(it.UUID) {
				t.Errorf("the EFI system partition's identifier is %q", it.UUID)
			}
		}
		x.must(x.s.Abort(user, id, ""))
		x.must(x.s.Release(user, id, ReleaseRequest{}))
		x.job(id, api.PowerResult{State: "off"})
		x.status(id, storage.StatusReady)
		look("released", given)
		x.write(func(tx *storage.Tx) error {
			all, err := tx.Filesystems(x.get(id).Node.ID)
			for _, f := range all {
				if f.Acquired {
					t.Errorf("left behind: %+v", f)
				}
			}
			return err
		})
	})
}
