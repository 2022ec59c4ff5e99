package provisioner

import (
	"slices"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// planDisks are a machine's physical disks as plans name them.
func planDisks(b *storage.Bundle) (out []layout.Disk) {
	boot := bootDisk(b)
	for _, d := range b.Disks {
		if d.Type == "physical" {
			out = append(out, layout.Disk{ID: diskID(&d.BlockDevice), Boot: d == boot})
		}
	}
	return out
}

// planStorage is what is modelled on a machine's disks, as plans take it.
func planStorage(b *storage.Bundle) layout.Storage {
	var st layout.Storage
	for _, d := range b.Disks {
		if d.PartitionTable != "" {
			t := layout.Table{Device: d.Name, Type: d.PartitionTable}
			for i := range d.Partitions {
				p := layoutPartition(&d.Partitions[i])
				if f := d.Partitions[i].Filesystem; f != nil && !f.Mountable() { // a membership: its group says so
					p.FSType, p.FSUUID, p.Label, p.MountPoint, p.Options = "", "", "", "", ""
				}
				t.Partitions = append(t.Partitions, p)
			}
			st.Tables = append(st.Tables, t)
		}
		if f := d.Filesystem; f != nil && f.Mountable() {
			st.Filesystems = append(st.Filesystems, layout.DeviceFS{Device: d.Name, FS: layoutFS(f)})
		}
	}
	for _, g := range b.Groups {
		out := layout.Group{Kind: g.Type, Name: g.Name, UUID: g.UUID, CacheMode: g.CacheMode}
		if !IsVG(g) && len(g.Devices) == 1 {
			out.Name = g.Devices[0].Name
		}
		for _, m := range g.Members {
			if m.Filesystem.Fstype == fsRAIDSpare {
				out.Spares = append(out.Spares, memberRef(m))
			} else {
				out.Members = append(out.Members, memberRef(m))
			}
		}
		if g.CacheSetID != nil {
			i := slices.IndexFunc(b.CacheSets, func(c *storage.CacheSetBundle) bool { return c.ID == *g.CacheSetID && c.Member != nil })
			if i >= 0 {
				out.Cache = memberRef(*b.CacheSets[i].Member)
			}
		}
		if IsVG(g) {
			for _, d := range g.Devices {
				out.Volumes = append(out.Volumes, layout.Volume{Name: d.Name, UUID: deref(d.UUID, ""), Size: d.Size})
			}
		}
		st.Groups = append(st.Groups, out)
	}
	for i := range b.Special {
		st.Special = append(st.Special, layoutFS(&b.Special[i]))
	}
	return st
}

func memberRef(m storage.Member) layout.Ref {
	r := layout.Ref{Device: m.Disk.Name}
	if m.Partition != nil {
		r.Number = int(m.Partition.Number)
	}
	return r
}

func layoutFS(f *storage.Filesystem) layout.FS {
	return layout.FS{Type: f.Fstype, UUID: deref(f.UUID, ""), Label: deref(f.Label, ""), MountPoint: deref(f.MountPoint, ""), Options: deref(f.MountOptions, "")}
}
