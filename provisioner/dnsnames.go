package provisioner

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// DerivedName is a name that follows from a node or a reserved address, with its records.
type DerivedName struct {
	Name     string
	DomainID int64
	FQDN     string
	SystemID string // "" without a node
	NodeType int64
	UserID   *int64
	Records  []DerivedRecord
}

// DerivedRecord is an address record of such a name.
type DerivedRecord struct {
	Type string // A or AAAA
	IP   netip.Addr
}

// allocRank orders kinds of addresses: the smaller, the sooner a node's name is given it.
var allocRank = map[int64]int{storage.AllocSticky: 0, storage.AllocUserReserved: 1, storage.AllocAuto: 2, storage.AllocDHCP: 3, storage.AllocDiscovered: 4}

// typeRank orders kinds of interfaces: what stands on top of others comes first.
var typeRank = map[string]int{"bond": 0, "bridge": 1, "physical": 2, "vlan": 3, "alias": 4, "unknown": 5}

var notInLabels = regexp.MustCompile(`[^a-z0-9-]+`)

// nameNode gives the addresses of one node to names: its best address of each family to the hostname, the others to names of its
// interfaces. Observed addresses count only where nothing was assigned.
func nameNode(addrs []storage.NodeAddress, domain string) []DerivedName {
	if slices.ContainsFunc(addrs, func(a storage.NodeAddress) bool { return a.AllocType != storage.AllocDiscovered }) {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a storage.NodeAddress) bool { return a.AllocType == storage.AllocDiscovered })
	}
	rank := func(a storage.NodeAddress) int {
		if a.Boot {
			return -1
		}
		if r, ok := typeRank[a.InterfaceType]; ok {
			return r
		}
		return len(typeRank)
	}
	sorted := slices.SortedStableFunc(slices.Values(addrs), func(a, b storage.NodeAddress) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(allocRank[a.AllocType], allocRank[b.AllocType]))
	})
	var out []DerivedName
	at := map[string]int{}
	had := map[string]bool{}
	for _, a := range sorted {
		name, typ := a.Hostname, addressType(a.IP)
		if had[typ] {
			label := strings.Trim(notInLabels.ReplaceAllString(strings.ToLower(a.InterfaceName), "-"), "-")
			if label == "" {
				continue
			}
			name = label + "." + a.Hostname
		}
		had[typ] = true
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			out = append(out, DerivedName{Name: name, DomainID: a.DomainID, FQDN: fullName(name, domain), SystemID: a.SystemID, NodeType: a.NodeType, UserID: a.OwnerID})
		}
		out[i].Records = append(out[i].Records, DerivedRecord{typ, a.IP})
	}
	return out
}

// derivedNames are the names that follow from the nodes that the actor sees and from reserved addresses without a name.
func derivedNames(tx *storage.Tx, a Actor) ([]DerivedName, error) {
	domains, err := domainMap(tx)
	if err != nil {
		return nil, err
	}
	addrs, err := tx.NodeAddresses()
	if err != nil {
		return nil, err
	}
	everything := a.Can("can_view_dnsrecords")
	var out []DerivedName
	for from := 0; from < len(addrs); {
		to := from
		for to < len(addrs) && addrs[to].SystemID == addrs[from].SystemID {
			to++
		}
		n := addrs[from]
		seen := everything
		switch n.NodeType {
		case storage.NodeMachine:
			seen = seen || a.seesMachine(n.OwnerID, n.PoolID)
		case storage.NodeDevice:
			seen = seen || n.OwnerID != nil && *n.OwnerID == a.User.ID
		}
		if seen {
			out = append(out, nameNode(addrs[from:to], domains[n.DomainID].Name)...)
		}
		from = to
	}
	def, err := tx.DefaultDomain()
	if err != nil {
		return nil, err
	}
	nameless, err := tx.NamelessAddresses()
	for _, x := range nameless {
		if !everything && (x.UserID == nil || *x.UserID != a.User.ID) {
			continue
		}
		name := strings.NewReplacer(".", "-", ":", "-").Replace(x.IP.String())
		out = append(out, DerivedName{Name: name, DomainID: def.ID, FQDN: fullName(name, def.Name), UserID: x.UserID,
			Records: []DerivedRecord{{addressType(x.IP), x.IP}}})
	}
	slices.SortStableFunc(out, func(a, b DerivedName) int {
		return cmp.Or(cmp.Compare(a.DomainID, b.DomainID), cmp.Compare(a.Name, b.Name))
	})
	return out, err
}
