package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

// rackAway is how long a rack may be silent before nobody expects it to carry out a scan.
const rackAway = 2 * time.Minute

// scanArgs are what a scan job holds: the VLAN whose racks scan, and the networks there.
type scanArgs struct {
	VLANID int64    `json:"vlan_id"`
	CIDRs  []string `json:"cidrs"`
}

// ScanReport is what became of a scan that was asked for.
type ScanReport struct {
	Result                     string
	Attempted, Started, Failed []storage.Node // racks
	Away                       []storage.Node
	InProgress                 int // VLANs that are being scanned already
}

// Scan has the racks look for neighbours in the networks that they are attached to: those named, or all.
func (s *Service) Scan(ctx context.Context, in ScanInput) (r ScanReport, err error) {
	if _, err := needUser(ctx); err != nil {
		return r, err
	}
	wanted, err := in.check()
	if err != nil {
		return r, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) (err error) {
		r, err = s.startScans(tx, wanted)
		return err
	})
	return r, err
}

func (s *Service) startScans(tx *storage.Tx, wanted []netip.Prefix) (r ScanReport, err error) {
	served, err := tx.RackVLANs(nil)
	if err != nil {
		return r, err
	}
	subnets, err := tx.Subnets()
	if err != nil {
		return r, err
	}
	racks, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeRack, storage.NodeRegionRack}})
	if err != nil {
		return r, err
	}
	byID := map[int64]storage.Node{}
	for _, n := range racks {
		byID[n.ID] = n
	}
	alive := map[int64]bool{} // VLANs with a rack that can scan them
	for _, v := range served {
		if tx.Now().Sub(byID[v.RackID].LastSeen) < rackAway {
			alive[v.VLANID] = true
		}
	}
	add := func(list *[]storage.Node, n storage.Node) {
		if !slices.ContainsFunc(*list, func(o storage.Node) bool { return o.ID == n.ID }) {
			*list = append(*list, n)
		}
	}
	asked := map[int64]bool{} // VLAN → whether its scan is new
	for _, v := range served {
		cidrs := scannable(subnets, v.VLANID, wanted)
		n := byID[v.RackID]
		if len(cidrs) == 0 || n.ID == 0 {
			continue
		}
		add(&r.Attempted, n)
		if tx.Now().Sub(n.LastSeen) >= rackAway {
			add(&r.Away, n)
		}
		if !alive[v.VLANID] {
			continue
		}
		fresh, done := asked[v.VLANID]
		if !done {
			if fresh, err = enqueueScan(tx, v.VLANID, cidrs); err != nil {
				return r, err
			}
			if asked[v.VLANID] = fresh; !fresh {
				r.InProgress++
			}
		}
		if slices.ContainsFunc(r.Away, func(o storage.Node) bool { return o.ID == n.ID }) {
			continue
		}
		if fresh {
			add(&r.Started, n)
		} else {
			add(&r.Failed, n)
		}
	}
	switch {
	case len(r.Started) == 0 && r.InProgress > 0:
		r.Result = "Scanning is already in-progress on all rack controllers."
	case len(r.Started) == 0:
		r.Result = "Unable to initiate network scanning on any rack controller. Verify that the rack controllers are started and have connected to the region."
	case len(r.Started) < len(r.Attempted):
		r.Result = "Scanning could not be started on all rack controllers; it is in-progress on some of them."
	default:
		r.Result = "Scanning is in-progress on all rack controllers."
	}
	return r, nil
}

// scannable are the IPv4 networks of a VLAN, or the parts of them that were asked for.
func scannable(subnets []storage.Subnet, vlanID int64, wanted []netip.Prefix) []string {
	var out []string
	for _, sn := range subnets {
		p, err := netip.ParsePrefix(sn.CIDR)
		if sn.VLANID != vlanID || err != nil || !p.Addr().Is4() {
			continue
		}
		if len(wanted) == 0 {
			out = append(out, p.String())
		}
		for _, w := range wanted {
			switch {
			case !w.Overlaps(p):
			case w.Bits() >= p.Bits():
				out = append(out, w.String())
			default:
				out = append(out, p.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// enqueueScan gives a scan of a VLAN to its racks, and says whether it is a new one: there is never more than one.
func enqueueScan(tx *storage.Tx, vlanID int64, cidrs []string) (bool, error) {
	args, err := json.Marshal(scanArgs{VLANID: vlanID, CIDRs: cidrs})
	if err != nil {
		return false, err
	}
	key := fmt.Sprintf("scan:%d", vlanID)
	j, err := tx.EnqueueJob(storage.Job{Kind: api.JobScan, Queue: fmt.Sprintf("vlan:%d", vlanID), UniqueKey: &key, Args: args, MaxAttempts: 1})
	return err == nil && j.Created.Equal(tx.Now()) && j.State == storage.JobReady, err
}

// scanOrder is what a rack is told of a scan job.
func scanOrder(j storage.Job) (*api.ScanOrder, error) {
	var args scanArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return nil, err
	}
	return &api.ScanOrder{CIDRs: args.CIDRs}, nil
}

// maxNeighbours bounds what one scan may report: a /16.
const maxNeighbours = 1 << 16

// finishScan records what a rack saw. What makes no sense is left out.
func (s *Service) finishScan(tx *storage.Tx, j storage.Job, rackSystemID string, attempt int64, r api.ScanResult) error {
	if len(r.Neighbours) > maxNeighbours {
		return Errorf(Invalid, "A scan reports at most %d neighbours.", maxNeighbours)
	}
	state := storage.JobDone
	if r.Error != "" {
		state = storage.JobFailed
	}
	doc, err := json.Marshal(map[string]int{"neighbours": len(r.Neighbours)})
	if err != nil {
		return err
	}
	if _, err := tx.FinishJob(j.ID, attempt, state, doc, clip(r.Error)); err != nil {
		return err
	}
	rack, err := tx.Node(rackSystemID)
	if err != nil {
		return err
	}
	var args scanArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return err
	}
	if _, err := tx.VLAN(args.VLANID); errors.Is(err, storage.ErrNotFound) {
		return nil // it went while it was scanned
	} else if err != nil {
		return err
	}
	for _, n := range r.Neighbours {
		ip, err := netip.ParseAddr(n.IP)
		mac, ok := NormalMAC(n.MAC)
		if err != nil || !ok || mac == "00:00:00:00:00:00" {
			continue
		}
		if err := tx.PutNeighbour(storage.Neighbour{IP: ip.Unmap().WithZone(""), MAC: mac, VLANID: &args.VLANID, RackID: &rack.ID,
			Interface: clip(n.Interface), LastSeen: tx.Now()}); err != nil {
			return err
		}
	}
	return nil
}
