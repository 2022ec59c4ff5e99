package provisioner

import (
	"context"
	"fmt"

	"github.com/ingot-metal/ingot/storage"
)

// entitlements are everything that a group may be given; the position is the bit in a set. Those marked per pool can be given on one
// pool too.
var entitlements = []struct {
	name    string
	perPool bool
	implies []string
}{
	{"can_edit_machines", true, []string{"can_deploy_machines", "can_view_machines", "can_view_available_machines"}},
	{"can_deploy_machines", true, nil},
	{"can_view_machines", true, []string{"can_view_available_machines"}},
	{"can_view_available_machines", true, nil},
	{"can_edit_global_entities", false, []string{"can_view_global_entities"}},
	{"can_view_global_entities", false, nil},
	{"can_edit_controllers", false, []string{"can_view_controllers"}},
	{"can_view_controllers", false, nil},
	{"can_edit_identities", false, []string{"can_view_identities"}},
	{"can_view_identities", false, nil},
	{"can_edit_configurations", false, []string{"can_view_configurations"}},
	{"can_view_configurations", false, nil},
	{"can_edit_notifications", false, []string{"can_view_notifications"}},
	{"can_view_notifications", false, nil},
	{"can_edit_boot_entities", false, []string{"can_view_boot_entities"}},
	{"can_view_boot_entities", false, nil},
	{"can_edit_license_keys", false, []string{"can_view_license_keys"}},
	{"can_view_license_keys", false, nil},
	{"can_view_devices", false, nil},
	{"can_view_ipaddresses", false, nil},
	{"can_view_dnsrecords", false, nil},
	{"can_edit_operations", false, []string{"can_view_operations"}},
	{"can_view_operations", false, nil},
}

// rights is a set of entitlements.
type rights uint32

// rightsOf is an entitlement with all that it implies; nothing for a name that is none.
var rightsOf = func() map[string]rights {
	bit := map[string]rights{}
	for i, e := range entitlements {
		bit[e.name] = 1 << i
	}
	out := map[string]rights{}
	for _, e := range entitlements {
		out[e.name] = bit[e.name]
		for _, also := range e.implies {
			out[e.name] |= bit[also]
		}
	}
	return out
}()

// Bit of an entitlement alone: what holding it means to a check.
func rightBit(name string) rights {
	for i, e := range entitlements {
		if e.name == name {
			return 1 << i
		}
	}
	return 0
}

var (
	rightEdit          = rightBit("can_edit_machines")
	rightDeploy        = rightBit("can_deploy_machines")
	rightView          = rightBit("can_view_machines")
	rightViewAvailable = rightBit("can_view_available_machines")
)

// Access is what a user may do, by all its groups: everywhere, and on single pools. It is read once a request and then only read.
type Access struct {
	global rights
	pools  map[int64]rights
}

func newAccess(list []storage.GroupEntitlement) *Access {
	a := &Access{}
	for _, e := range list {
		if e.PoolID == nil {
			a.global |= rightsOf[e.Entitlement]
			continue
		}
		if a.pools == nil {
			a.pools = map[int64]rights{}
		}
		a.pools[*e.PoolID] |= rightsOf[e.Entitlement]
	}
	return a
}

func accessFrom(names []string) *Access {
	a := &Access{}
	for _, n := range names {
		a.global |= rightsOf[n]
	}
	return a
}

// What an actor may do that was made without a look at its groups, as tests and the command line do: what the two default groups give.
var (
	adminAccess = accessFrom(storage.AdministratorEntitlements)
	userAccess  = accessFrom(storage.UserEntitlements)
	fullAccess  = &Access{global: ^rights(0)}
	noAccess    = &Access{}
)

func (a Actor) access() *Access {
	switch {
	case a.System:
		return fullAccess
	case a.Anonymous:
		return noAccess
	case a.Access != nil:
		return a.Access
	case a.Admin:
		return adminAccess
	}
	return userAccess
}

// Can tells whether the actor has an entitlement everywhere.
func (a Actor) Can(entitlement string) bool { return a.access().global&rightBit(entitlement) != 0 }

// canPool tells whether the actor has a right everywhere or on a pool; a nil pool is none.
func (a Actor) canPool(r rights, pool *int64) bool {
	x := a.access()
	return x.global&r != 0 || pool != nil && x.pools[*pool]&r != 0
}

// poolsWith are the pools on which the actor has a right; nil: on all.
func (a Actor) poolsWith(r rights) []int64 {
	x := a.access()
	if x.global&r != 0 {
		return nil
	}
	ids := []int64{}
	for id, have := range x.pools {
		if have&r != 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// sees is which nodes lists show to the actor; nil: all.
func (a Actor) sees() *storage.Visibility {
	v := &storage.Visibility{UserID: a.User.ID, Available: a.poolsWith(rightViewAvailable), All: a.poolsWith(rightView),
		Devices: a.Can("can_view_devices"), Controllers: a.Can("can_view_controllers")}
	if v.All == nil && v.Devices && v.Controllers {
		return nil
	}
	return v
}

// seesMachine is what sees says of one machine.
func (a Actor) seesMachine(ownerID, poolID *int64) bool {
	own := ownerID == nil || !a.Anonymous && *ownerID == a.User.ID
	return own && a.canPool(rightViewAvailable, poolID) || a.canPool(rightView, poolID)
}

// mayAcquire is which free machines the actor may take; nil: all.
func (a Actor) mayAcquire() *storage.Visibility {
	v := &storage.Visibility{UserID: a.User.ID, Available: a.poolsWith(rightDeploy), All: a.poolsWith(rightEdit)}
	if v.All == nil {
		return nil
	}
	return v
}

// AccessOf reads what a user may do. What was read before is used again until the user's access version changes.
func (s *Service) AccessOf(ctx context.Context, u storage.User) (*Access, error) {
	type entry struct {
		version int64
		access  *Access
	}
	if e, ok := s.access.Load(u.ID); ok && e.(entry).version == u.AccessVersion {
		return e.(entry).access, nil
	}
	var list []storage.GroupEntitlement
	version := u.AccessVersion
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		now, err := tx.User(u.ID) // with the entitlements of the same moment
		if err != nil {
			return err
		}
		version = now.AccessVersion
		list, err = tx.UserEntitlements(u.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	a := newAccess(list)
	s.access.Store(u.ID, entry{version, a})
	return a, nil
}

// ActorOf makes an actor of a user who has shown who it is.
func (s *Service) ActorOf(ctx context.Context, a Actor, u storage.User) (Actor, error) {
	access, err := s.AccessOf(ctx, u)
	if err != nil {
		return a, err
	}
	a.User, a.Anonymous, a.Access = u, false, access
	a.Admin = a.Can("can_edit_global_entities")
	return a, nil
}

// Need is the error of a caller who lacks an entitlement, or nil.
func Need(ctx context.Context, entitlement string) error {
	_, err := needPermission(ctx, entitlement)
	return err
}

// lacks is MAAS's answer to those who lack an entitlement.
func lacks(name string) error {
	return Errorf(Forbidden, "User does not have permission to perform this operation. The user should have permission '%s'", name)
}

// checkEntitlement tells whether a group can be given an entitlement on a resource type.
func checkEntitlement(resourceType, name string) error {
	for _, e := range entitlements {
		if e.name == name && (resourceType == "maas" || e.perPool) {
			return nil
		}
	}
	return Errorf(Invalid, "Invalid entitlement '%s' for resource type '%s'.", firstRunes(name, 100), resourceType)
}

// mayNode tells whether an actor may do something with a node.
func mayNode(a Actor, n *storage.Node, p nodePerm) bool {
	if a.System {
		return true
	}
	if a.Anonymous {
		return false
	}
	switch n.NodeType {
	case storage.NodeMachine:
		return mayMachine(a, n, p)
	case storage.NodeDevice:
		switch p {
		case permView:
			return true
		case permEdit, permLock:
			return n.OwnerID == nil || *n.OwnerID == a.User.ID || a.Can("can_edit_machines")
		}
		return a.Can("can_edit_machines")
	}
	return p == permView || a.Can("can_edit_controllers")
}

func mayMachine(a Actor, n *storage.Node, p nodePerm) bool {
	own := n.OwnerID == nil || *n.OwnerID == a.User.ID
	switch p {
	case permView:
		return own || a.canPool(rightView, n.PoolID)
	case permEdit:
		return !n.Locked && (own || a.canPool(rightEdit, n.PoolID))
	case permLock:
		return own || a.canPool(rightEdit, n.PoolID)
	case permAdmin:
		return !n.Locked && a.canPool(rightEdit, n.PoolID)
	case permAdminRead:
		return a.canPool(rightEdit, n.PoolID)
	}
	return false
}

// String keeps an access readable in test failures.
func (a *Access) String() string { return fmt.Sprintf("global %b, pools %v", a.global, a.pools) }
