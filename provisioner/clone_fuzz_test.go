package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// storageProgram turns bytes into storage: disks first, then steps on whatever is there. What the rules refuse is skipped, so every
// program ends in a model that a user could have made.
type storageProgram struct {
	s    *Service
	ctx  context.Context
	id   string
	data []byte
}

func (p *storageProgram) byte() byte {
	if len(p.data) == 0 {
		return 0
	}
	b := p.data[0]
	p.data = p.data[1:]
	return b
}

// target picks a device or a partition of one, in the words of the API.
func (p *storageProgram) target(b *storage.Bundle) (t StorageTarget) {
	if len(b.Disks) == 0 {
		return t
	}
	d := b.Disks[int(p.byte())%len(b.Disks)]
	t.Device = fmt.Sprint(d.ID)
	if pick := int(p.byte()); len(d.Partitions) > 0 && pick%4 > 0 {
		t.Partition = fmt.Sprint(d.Partitions[pick%len(d.Partitions)].ID)
	}
	return t
}

func (p *storageProgram) group(b *storage.Bundle, name string) GroupInput {
	in := GroupInput{Name: &name, Level: []string{"raid-0", "raid-1", "raid-5", "raid-6", "raid-10"}[int(p.byte())%5]}
	for n := int(p.byte())%4 + 1; n > 0; n-- {
		if t := p.target(b); t.Partition != "" {
			in.Partitions = append(in.Partitions, t.Partition)
		} else {
			in.Devices = append(in.Devices, t.Device)
		}
	}
	return in
}

// run performs the steps. An error that is not a refusal is returned.
func (p *storageProgram) run() error {
	for step := 0; step < 24 && len(p.data) > 0; step++ {
		b, err := p.s.Storage(p.ctx, p.id)
		if err != nil {
			return err
		}
		op, t := p.byte()%11, p.target(b)
		name := fmt.Sprintf("x%d", step)
		one, size := func(v string) *string { return &v }, fmt.Sprint(int64(p.byte())<<22)
		switch op {
		case 0, 1:
			_, _, err = p.s.CreatePartition(p.ctx, p.id, t.Device, &size, nil, op == 1)
		case 2:
			_, _, err = p.s.Format(p.ctx, p.id, t, FormatInput{Fstype: []string{"ext4", "fat32", "xfs", "btrfs", "swap", "vfat"}[int(p.byte())%6], Label: one(name)})
		case 3:
			_, _, err = p.s.Mount(p.ctx, p.id, t, one([]string{"/", "/boot", "/srv", "/boot/efi", "none"}[int(p.byte())%5]), nil)
		case 4:
			_, _, err = p.s.CreateRAID(p.ctx, p.id, p.group(b, name))
		case 5:
			_, _, err = p.s.CreateVolumeGroup(p.ctx, p.id, p.group(b, name))
		case 6:
			if len(b.Groups) > 0 {
				_, _, err = p.s.CreateLogicalVolume(p.ctx, p.id, b.Groups[int(p.byte())%len(b.Groups)].ID, name, nil, &size)
			}
		case 7:
			if t.Partition != "" {
				_, _, err = p.s.CreateCacheSet(p.ctx, p.id, nil, &t.Partition)
			} else {
				_, _, err = p.s.CreateCacheSet(p.ctx, p.id, &t.Device, nil)
			}
		case 8:
			if len(b.CacheSets) > 0 {
				in := BcacheInput{Name: &name, CacheSet: one(fmt.Sprint(b.CacheSets[0].ID)), CacheMode: one("writeback")}
				if in.BackingDevice = &t.Device; t.Partition != "" {
					in.BackingDevice, in.BackingPartition = nil, &t.Partition
				}
				_, _, err = p.s.CreateBcache(p.ctx, p.id, in)
			}
		case 9:
			_, err = p.s.MountSpecial(p.ctx, p.id, "tmpfs", "/tmp/"+name, one("size=1m"))
		case 10:
			err = p.s.SetBootDisk(p.ctx, p.id, t.Device)
		}
		if e := new(Error); err != nil && !errors.As(err, &e) && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("step %d, %d on %+v: %w", step, op, t, err)
		}
	}
	return nil
}

// storageShape says how a machine's storage is built, without what differs between machines: ids, UUIDs, and the names of the disks.
func storageShape(b *storage.Bundle) []string {
	var out []string
	fs := func(f *storage.Filesystem) string {
		if f == nil {
			return "-"
		}
		return fmt.Sprintf("%s/%s/%s/%s", f.Fstype, deref(f.Label, ""), deref(f.MountPoint, ""), deref(f.MountOptions, ""))
	}
	for _, d := range b.Disks {
		line := fmt.Sprintf("disk %q %s", d.PartitionTable, fs(d.Filesystem))
		if d.Type != "physical" {
			line += fmt.Sprintf(" %s %d", d.Name, d.Size)
			if g := GroupOf(b, d.GroupID); g != nil {
				line += " of " + g.Name
			}
		} else if len(d.Partitions) == 0 && d.Filesystem == nil {
			continue
		}
		for _, p := range d.Partitions {
			line += fmt.Sprintf(" [%d %d %v %s]", p.Number, p.Size, p.Bootable, fs(p.Filesystem))
		}
		out = append(out, line)
	}
	for _, g := range b.Groups {
		line := fmt.Sprintf("group %s %s %s: %d members", g.Type, g.Name, g.CacheMode, len(g.Members))
		for _, d := range g.Devices {
			line += " " + d.Name
		}
		out = append(out, line)
	}
	for _, f := range b.Special {
		out = append(out, "special "+fs(&f))
	}
	out = append(out, fmt.Sprintf("%d cache sets", len(b.CacheSets)))
	slices.Sort(out)
	return out
}

// FuzzCloneStorage makes storage of every kind on one machine and clones it to another with disks of its own: the clone is refused and
// changes nothing, or has the same shape with no identity in common.
func FuzzCloneStorage(f *testing.F) {
	f.Add([]byte("\x02\x40\x40\x02\x40\x40" + "\x00\x00\x00\x20\x00\x00\x00\x20\x02\x00\x01\x00\x00\x03\x00\x01\x00\x00"))
	f.Add([]byte("\x03\x60\x60\x60\x03\x60\x70\x80" + "\x04\x00\x00\x10\x01\x01\x00\x00\x01\x00\x05\x03\x00\x10\x00\x00\x03\x00\x06\x03\x00\x08\x00"))
	f.Add([]byte("\x02\x40\x50\x02\x50\x40" + "\x07\x00\x00\x00\x08\x01\x00\x00\x02\x02\x00\x00\x00"))
	f.Add([]byte("\x01\x40\x01\x10" + "\x00\x00\x00\x20"))
	db := storagetest.New(f)
	x := newSite(f, db)
	machines := []string{x.ready("bios"), x.ready("bios")}
	f.Fuzz(func(t *testing.T, data []byte) {
		x.t = t
		ctx := x.as(x.admin)
		p := &storageProgram{s: x.s, ctx: ctx, data: data}
		for _, id := range machines {
			b := x.get(id)
			x.write(func(tx *storage.Tx) error {
				if err := tx.ClearStorageLayout(b.Node.ID); err != nil {
					return err
				}
				n := b.Node
				n.BootDiskID = nil
				if err := tx.UpdateNode(&n); err != nil {
					return err
				}
				left, err := tx.BlockDevices(n.ID)
				for i := 0; err == nil && i < len(left); i++ {
					err = tx.DeleteBlockDevice(left[i].ID)
				}
				for i, disks := 0, int(p.byte())%6; err == nil && i < disks; i++ {
					serial := fmt.Sprintf("%s-%d", id, i)
					err = tx.InsertBlockDevice(&storage.BlockDevice{NodeID: n.ID, Name: fmt.Sprintf("sd%c", 'a'+i), Type: "physical", Size: int64(p.byte()) << 24, BlockSize: 512, Serial: &serial})
				}
				return err
			})
		}
		p.id = machines[0]
		if err := p.run(); err != nil {
			t.Fatal(err)
		}
		before := storageShape(x.get(machines[1]))
		err := x.s.CloneMachines(ctx, CloneRequest{Source: machines[0], Destinations: machines[1:], Storage: true})
		src, dst := x.get(machines[0]), x.get(machines[1])
		after := storageShape(dst)
		if err != nil {
			if e := new(Error); !errors.As(err, &e) || e.Kind != Invalid {
				t.Fatalf("clone: %v", err)
			}
			if !slices.Equal(before, after) {
				t.Fatalf("refused (%v), yet the storage changed from\n%s\nto\n%s", err, strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			return
		}
		if want := storageShape(src); !slices.Equal(want, after) {
			t.Fatalf("cloned\n%s\nas\n%s", strings.Join(want, "\n"), strings.Join(after, "\n"))
		}
		seen := map[string]bool{}
		for _, b := range []*storage.Bundle{src, dst} {
			unique := func(id *string) {
				if id == nil || *id == "" {
					return
				}
				if seen[*id] {
					t.Fatalf("%s is on both machines, or twice on one", *id)
				}
				seen[*id] = true
			}
			for _, m := range filesystemsOf(b) {
				unique(m.fs.UUID)
			}
			for _, g := range b.Groups {
				unique(&g.UUID)
			}
			for _, d := range b.Disks {
				var used int64
				for _, p := range d.Partitions {
					unique(&p.UUID)
					used += p.Size
				}
				if used > d.Size {
					t.Fatalf("%s: partitions of %d bytes on %d", d.Name, used, d.Size)
				}
			}
		}
	})
}
