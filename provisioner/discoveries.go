package provisioner

import (
	"context"
	"encoding/base64"
	"net/netip"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

// Discovery is somebody who was seen on a network and is no interface of a node.
type Discovery struct {
	storage.Neighbour
	RackName string // of the rack that saw it; empty when that is gone
	RackID   string // its system_id
}

// DiscoveryID is how a discovery is named: by address and MAC address.
func (d Discovery) DiscoveryID() string {
	return base64.StdEncoding.EncodeToString([]byte(d.IP.String() + "," + d.MAC))
}

// DiscoveryBook is discoveries with what their rendering refers to.
type DiscoveryBook struct {
	List []Discovery
	Cat  *storage.Catalogue
}

// Discoveries lists who was seen and is not known, the last seen first. unknownIP leaves out those whose address somebody holds.
func (s *Service) Discoveries(ctx context.Context, unknownIP bool) (b DiscoveryBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		b, err = loadDiscoveries(tx)
		if err != nil || !unknownIP {
			return err
		}
		held, err := tx.AddressesInUse()
		b.List = slices.DeleteFunc(b.List, func(d Discovery) bool { return held[d.IP] })
		return err
	})
	return b, err
}

func loadDiscoveries(tx *storage.Tx) (b DiscoveryBook, err error) {
	rows, err := tx.UnknownNeighbours()
	if err != nil {
		return b, err
	}
	if b.Cat, err = tx.LoadCatalogue(); err != nil {
		return b, err
	}
	racks, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeRack, storage.NodeRegionRack}})
	if err != nil {
		return b, err
	}
	byID := map[int64]storage.Node{}
	for _, n := range racks {
		byID[n.ID] = n
	}
	b.List = []Discovery{}
	for _, r := range rows {
		d := Discovery{Neighbour: r}
		if r.RackID != nil {
			n := byID[*r.RackID]
			d.RackName, d.RackID = n.Hostname, n.SystemID
		}
		b.List = append(b.List, d)
	}
	return b, nil
}

// Discovery returns one discovery.
func (s *Service) Discovery(ctx context.Context, id string) (b DiscoveryBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if b, err = loadDiscoveries(tx); err != nil {
			return err
		}
		b.List = slices.DeleteFunc(b.List, func(d Discovery) bool { return d.DiscoveryID() != id })
		if len(b.List) == 0 {
			return noMatch("Discovery")
		}
		return nil
	})
	return b, err
}

func needDiscoveryAdmin(ctx context.Context) error {
	a, err := needUser(ctx)
	if err == nil && !a.Admin {
		err = Errorf(Forbidden, "Must be an administrator to clear discovery entries.")
	}
	return err
}

// ClearDiscoveries forgets who was seen, or only the names that they gave.
func (s *Service) ClearDiscoveries(ctx context.Context, all, mdns, neighbours bool) error {
	if err := needDiscoveryAdmin(ctx); err != nil {
		return err
	}
	if !all && !mdns && !neighbours {
		return Errorf(Invalid, "Bad request: could not determine what data to clear.\nMust specify mdns=True, neighbours=True, or all=True.")
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if all || neighbours {
			return tx.DeleteNeighbours()
		}
		return tx.ClearNeighbourNames()
	})
}

// ClearDiscovery forgets one.
func (s *Service) ClearDiscovery(ctx context.Context, ipText, macText string) error {
	if err := needDiscoveryAdmin(ctx); err != nil {
		return err
	}
	for _, p := range [][2]string{{"ip", ipText}, {"mac", macText}} {
		if p[1] == "" {
			return Errorf(Invalid, "No provided %s!", p[0])
		}
	}
	ip, err := netip.ParseAddr(ipText)
	mac, ok := NormalMAC(macText)
	if err != nil || !ok {
		return Errorf(Gone, "Gone")
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		there, err := tx.DeleteNeighbour(ip.Unmap(), mac)
		if err == nil && !there {
			err = Errorf(Gone, "Gone")
		}
		return err
	})
}

// noteLease notes that a lease was given: who has it is a neighbour of the rack that serves the VLAN.
func (s *Service) noteLease(tx *storage.Tx, l storage.Lease) error {
	sn, err := tx.Subnet(l.SubnetID)
	if err != nil {
		return err
	}
	x := storage.Neighbour{IP: l.IP, MAC: l.MAC, VLANID: &sn.VLANID, Hostname: l.Hostname, LastSeen: l.Given}
	racks, err := tx.RackVLANsOf(sn.VLANID)
	if err != nil {
		return err
	}
	if len(racks) > 0 {
		x.RackID, x.Interface = &racks[0].RackID, racks[0].Interface
	}
	return tx.PutNeighbour(x)
}

// ScanInput is what a scan is asked for.
type ScanInput struct {
	CIDRs   []string
	Force   bool
	Threads *int64
}

// check reads the networks to scan.
func (in ScanInput) check() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range splitList(in.CIDRs) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, Errorf(Invalid, "Bad request: invalid CIDR: %s", text)
		}
		out = append(out, p.Masked())
	}
	if len(out) == 0 && !in.Force {
		return nil, Errorf(Invalid, "Bad request: scanning all subnets is not allowed unless force=True is specified.\n\n"+
			"**WARNING: This will scan ALL networks attached to MAAS rack controllers.\nCheck with your internet service provider or IT department to be sure this is allowed before proceeding.**")
	}
	if in.Threads != nil && *in.Threads < 1 {
		return nil, Errorf(Invalid, "Bad request: invalid number of threads: %d", *in.Threads)
	}
	return out, nil
}
