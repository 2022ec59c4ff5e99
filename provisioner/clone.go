package provisioner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// CloneRequest says what to copy from one machine to others.
type CloneRequest struct {
	Source       string
	Destinations []string
	Interfaces   bool
	Storage      bool
}

const maxClones = 500

// CloneMachines gives machines the network or storage configuration of another one. All or none.
func (s *Service) CloneMachines(ctx context.Context, req CloneRequest) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) error {
		f := form{}
		src, err := tx.LoadMachine(req.Source)
		if errors.Is(err, storage.ErrNotFound) || err == nil && (src.Node.NodeType != storage.NodeMachine || !mayNode(a, &src.Node, permView)) {
			f.add("source", "%s", msgChoice(clip(req.Source)))
		} else if err != nil {
			return err
		}
		if !req.Interfaces && !req.Storage {
			f.add("__all__", "Either storage or interfaces must be true.")
		}
		if len(req.Destinations) > maxClones {
			f.add("destinations", "At most %d machines at once.", maxClones)
			return f.err()
		}
		var nodes []*storage.Node
		for _, id := range sortedSet(splitList(req.Destinations)) {
			n, err := tx.LockNodeBySystemID(id)
			switch {
			case errors.Is(err, storage.ErrNotFound) || err == nil && (n.NodeType != storage.NodeMachine || !mayNode(a, &n, permAdmin) ||
				!in(n.Status, storage.StatusReady, storage.StatusFailedTesting)):
				f.add("destinations", "%s", msgChoice(clip(id)))
			case err != nil:
				return err
			case id == req.Source:
				f.add("destinations", "Source machine %s cannot be a destination machine.", id)
			default:
				nodes = append(nodes, &n)
			}
		}
		if len(nodes) == 0 && len(f["destinations"]) == 0 {
			f.add("destinations", msgRequired)
		}
		if err := f.err(); err != nil {
			return err
		}
		for _, n := range nodes {
			dst, err := tx.LoadMachine(n.SystemID)
			if err != nil {
				return err
			}
			if why := s.unlike(src, dst, req); why != "" {
				f.add("destinations", "%s is not like %s: %s", n.Hostname, src.Node.Hostname, why)
				continue
			}
			if req.Storage {
				if err := cloneStorage(tx, src, dst, n); err != nil {
					return err
				}
			}
			if req.Interfaces {
				if err := cloneNetwork(tx, src, dst); err != nil {
					return err
				}
			}
			if err := s.touchRevision(tx, n); err != nil {
				return err
			}
			if err := tx.UpdateNode(n); err != nil {
				return err
			}
		}
		return f.err()
	})
}

// unlike says why a machine cannot take another's configuration, or "".
func (s *Service) unlike(src, dst *storage.Bundle, req CloneRequest) string {
	if req.Storage {
		if archOf(&src.Node) != archOf(&dst.Node) {
			return "it has another architecture"
		}
		if isUEFI(&src.Node) != isUEFI(&dst.Node) {
			return "it boots by another kind of firmware"
		}
		if _, why := matchDisks(src, dst); why != "" {
			return why
		}
	}
	if req.Interfaces {
		if _, why := matchNICs(src, dst); why != "" {
			return why
		}
	}
	return ""
}

func physicalDisks(b *storage.Bundle) []*storage.DiskBundle {
	return slices.DeleteFunc(slices.Clone(b.Disks), func(d *storage.DiskBundle) bool { return d.Type != "physical" })
}

// matchDisks pairs the disks of two machines, by id of the first's: boot disk with boot disk, then each with the smallest that is large
// enough, those with the same tags first.
func matchDisks(src, dst *storage.Bundle) (map[int64]*storage.DiskBundle, string) {
	from, to := physicalDisks(src), physicalDisks(dst)
	out := map[int64]*storage.DiskBundle{}
	pair := func(d *storage.DiskBundle, fits func(*storage.DiskBundle) bool) bool {
		best := -1
		for i, c := range to {
			if c.Size < d.Size || c.BlockSize != d.BlockSize || !fits(c) {
				continue
			}
			if best < 0 || cloneRank(d, c) < cloneRank(d, to[best]) {
				best = i
			}
		}
		if best < 0 {
			return false
		}
		out[d.ID] = to[best]
		to = slices.Delete(to, best, best+1)
		return true
	}
	if len(to) < len(from) {
		return nil, "it has fewer disks"
	}
	srcBoot, dstBoot := bootDisk(src), bootDisk(dst)
	if srcBoot != nil && !pair(srcBoot, func(c *storage.DiskBundle) bool { return c == dstBoot }) {
		return nil, "its boot disk is smaller, or has other blocks"
	}
	// The large ones first: they have the least choice.
	slices.SortStableFunc(from, func(x, y *storage.DiskBundle) int { return cmp.Compare(y.Size, x.Size) })
	for _, d := range from {
		if d != srcBoot && !pair(d, func(*storage.DiskBundle) bool { return true }) {
			return nil, fmt.Sprintf("it has no disk for %s", d.Name)
		}
	}
	return out, ""
}

func cloneRank(want, have *storage.DiskBundle) int64 {
	rank := have.Size - want.Size
	if !slices.Equal(want.Tags, have.Tags) {
		rank += 1 << 60
	}
	return rank
}

func physicalNICBundles(b *storage.Bundle) []*storage.InterfaceBundle {
	return slices.DeleteFunc(slices.Clone(b.Interfaces), func(i *storage.InterfaceBundle) bool { return i.Type != "physical" })
}

// matchNICs pairs the cards of two machines, by id of the first's: those of one name, then the others in order.
func matchNICs(src, dst *storage.Bundle) (map[int64]*storage.InterfaceBundle, string) {
	from, to := physicalNICBundles(src), physicalNICBundles(dst)
	if len(to) < len(from) {
		return nil, "it has fewer interfaces"
	}
	out := map[int64]*storage.InterfaceBundle{}
	for _, i := range from {
		if k := slices.IndexFunc(to, func(c *storage.InterfaceBundle) bool { return c.Name == i.Name }); k >= 0 {
			out[i.ID] = to[k]
			to = slices.Delete(to, k, k+1)
		}
	}
	for _, i := range from {
		if out[i.ID] == nil {
			out[i.ID] = to[0]
			to = to[1:]
		}
	}
	return out, ""
}

// cloneStorage gives a machine the layout of another: tables, partitions, groups and file systems, each with an identity of its own.
func cloneStorage(tx *storage.Tx, src, dst *storage.Bundle, n *storage.Node) error {
	match, _ := matchDisks(src, dst)
	if err := tx.ClearStorageLayout(n.ID); err != nil {
		return err
	}
	disks, parts, groups, caches := map[int64]int64{}, map[int64]int64{}, map[int64]int64{}, map[int64]int64{}
	for from, to := range match {
		disks[from] = to.ID
	}
	for _, c := range src.CacheSets {
		x := storage.CacheSet{NodeID: n.ID}
		if err := tx.InsertCacheSet(&x); err != nil {
			return err
		}
		caches[c.ID] = x.ID
	}
	for _, g := range src.Groups {
		x := storage.StorageGroup{NodeID: n.ID, Type: g.Type, Name: g.Name, UUID: newUUID(), CacheMode: g.CacheMode, CacheSetID: mapped(caches, g.CacheSetID)}
		if err := tx.InsertStorageGroup(&x); err != nil {
			return err
		}
		groups[g.ID] = x.ID
	}
	for _, d := range src.Disks {
		if d.Type != "physical" {
			x := d.BlockDevice
			uuid := newUUID()
			x.ID, x.NodeID, x.GroupID, x.UUID = 0, n.ID, mapped(groups, d.GroupID), &uuid
			if err := tx.InsertBlockDevice(&x); err != nil {
				return err
			}
			disks[d.ID] = x.ID
		} else {
			x := match[d.ID].BlockDevice
			x.PartitionTable = d.PartitionTable
			if err := tx.UpdateBlockDevice(&x); err != nil {
				return err
			}
		}
		for _, p := range d.Partitions {
			x := p.Partition
			x.ID, x.BlockDeviceID, x.UUID = 0, disks[d.ID], newUUID()
			if err := tx.InsertPartition(&x); err != nil {
				return err
			}
			parts[p.ID] = x.ID
		}
	}
	all, err := tx.Filesystems(src.Node.ID)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Acquired { // belongs to whoever has the source
			continue
		}
		f.ID, f.NodeID = 0, n.ID
		f.BlockDeviceID, f.PartitionID = mapped(disks, f.BlockDeviceID), mapped(parts, f.PartitionID)
		f.GroupID, f.CacheSetID = mapped(groups, f.GroupID), mapped(caches, f.CacheSetID)
		if f.UUID != nil && *f.UUID != "" {
			id := newUUID()
			f.UUID = &id
			if slices.Contains(fatTypes, f.Fstype) {
				id = layout.VolumeID(id)
			}
		}
		if err := tx.InsertFilesystem(&f); err != nil {
			return err
		}
	}
	if d := bootDisk(src); d != nil {
		id := match[d.ID].ID
		n.BootDiskID = &id
	}
	return nil
}

func mapped(to map[int64]int64, id *int64) *int64 {
	if id == nil {
		return nil
	}
	x, ok := to[*id]
	if !ok {
		return nil
	}
	return &x
}

// cloneNetwork gives a machine the network configuration of another. Cards stay what they are; fixed addresses become others of the
// same subnets.
func cloneNetwork(tx *storage.Tx, src, dst *storage.Bundle) error {
	match, _ := matchNICs(src, dst)
	for _, i := range dst.Interfaces {
		if i.Type != "physical" {
			if err := tx.DeleteInterface(i.ID); err != nil {
				return err
			}
		}
	}
	for _, i := range physicalNICBundles(dst) {
		if err := tx.DeleteInterfaceAddresses(i.ID, storage.AllocAuto, storage.AllocSticky, storage.AllocDHCP); err != nil {
			return err
		}
	}
	ids, macs := map[int64]int64{}, map[string]string{}
	for from, to := range match {
		ids[from] = to.ID
		for _, i := range src.Interfaces {
			if i.ID == from {
				macs[i.MACAddress] = to.MACAddress
			}
		}
	}
	for _, i := range physicalNICBundles(src) {
		x := match[i.ID].Interface
		x.VLANID, x.Enabled, x.Params, x.Tags = i.VLANID, i.Interface.Enabled, i.Params, i.Tags
		if err := tx.UpdateInterface(&x); err != nil {
			return err
		}
	}
	// What stands on others comes after them.
	for left := slices.Clone(src.Interfaces); len(left) > 0; {
		var next []*storage.InterfaceBundle
		for _, i := range left {
			if i.Type == "physical" || i.Acquired {
				continue
			}
			ready := true
			var parents []int64
			for _, p := range i.Below {
				id, ok := ids[p.ID]
				ready = ready && ok
				parents = append(parents, id)
			}
			if !ready {
				next = append(next, i)
				continue
			}
			x := i.Interface
			x.ID, x.NodeID, x.MACAddress = 0, dst.Node.ID, cmp.Or(macs[i.MACAddress], i.MACAddress)
			if macs[i.MACAddress] == "" && len(i.Below) > 0 {
				x.MACAddress = cmp.Or(macs[i.Below[0].MACAddress], x.MACAddress)
			}
			if err := tx.InsertInterface(&x); err != nil {
				return err
			}
			if err := tx.SetInterfaceParents(x.ID, parents); err != nil {
				return err
			}
			ids[i.ID] = x.ID
		}
		if len(next) == len(left) { // stands on what is not copied, such as an acquired bridge
			break
		}
		left = next
	}
	for _, i := range src.Interfaces {
		to, ok := ids[i.ID]
		if !ok {
			continue
		}
		for _, l := range i.Links {
			if l.AllocType != storage.AllocAuto && l.AllocType != storage.AllocSticky && l.AllocType != storage.AllocDHCP {
				continue
			}
			x := storage.IPAddress{InterfaceID: &to, SubnetID: l.SubnetID, AllocType: l.AllocType, DefaultGateway: l.DefaultGateway}
			if l.AllocType == storage.AllocSticky && l.IP.IsValid() && l.SubnetID != nil {
				var err error
				if x.IP, err = pickAddress(tx, *l.SubnetID); err != nil {
					return err
				}
			}
			if err := tx.InsertIPAddress(&x); err != nil {
				return err
			}
		}
	}
	return nil
}
