package provisioner

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/storage"
)

// Groups of users. Who is in Administrators is shown as is_superuser; that group keeps its entitlements and one member, so that somebody
// can always put things right.

func noGroup(id int64) error { return Errorf(NotFound, "UserGroup with id %d not found.", id) }

func findGroup(tx *storage.Tx, id int64) (storage.UserGroup, error) {
	g, err := tx.UserGroup(id)
	return g, notFound(err, noGroup(id))
}

func checkGroup(g *storage.UserGroup) error {
	switch n := utf8.RuneCountInString(g.Name); {
	case g.Name == "":
		return Errorf(Invalid, "Name is required.")
	case n > 255:
		return Errorf(Invalid, "Ensure this value has at most 255 characters (it has %d).", n)
	case len(g.Description) > descriptionLimit:
		return Errorf(Invalid, "The description is too long.")
	}
	return nil
}

func groupTaken(g storage.UserGroup, err error) error {
	if errors.Is(err, storage.ErrConflict) {
		return Errorf(Conflict, "A group named '%s' already exists.", g.Name)
	}
	return err
}

// UserGroups lists all groups by id.
func (s *Service) UserGroups(ctx context.Context) (out []storage.UserGroup, err error) {
	if _, err := needPermission(ctx, "can_view_identities"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.UserGroups(); return err })
	return out, err
}

// UserGroup reads a group.
func (s *Service) UserGroup(ctx context.Context, id int64) (g storage.UserGroup, err error) {
	if _, err := needPermission(ctx, "can_view_identities"); err != nil {
		return g, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { g, err = findGroup(tx, id); return err })
	return g, err
}

// CreateUserGroup makes a group without members and entitlements.
func (s *Service) CreateUserGroup(ctx context.Context, in Named) (g storage.UserGroup, err error) {
	a, err := needPermission(ctx, "can_edit_identities")
	if err != nil {
		return g, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		g = storage.UserGroup{Name: deref(in.Name, ""), Description: deref(in.Description, "")}
		if err := checkGroup(&g); err != nil {
			return err
		}
		if err := tx.InsertUserGroup(&g); err != nil {
			return groupTaken(g, err)
		}
		return s.audit(tx, a, "AUTHORISATION", "Created group '%s'.", g.Name)
	})
	return g, err
}

// UpdateUserGroup changes the name and description of a group.
func (s *Service) UpdateUserGroup(ctx context.Context, id int64, in Named) (g storage.UserGroup, err error) {
	err = s.changeGroup(ctx, id, func(tx *storage.Tx, group *storage.UserGroup) (string, error) {
		group.Name, group.Description = deref(in.Name, group.Name), deref(in.Description, group.Description)
		if err := checkGroup(group); err != nil {
			return "", err
		}
		g = *group
		return "Updated group.", groupTaken(*group, tx.UpdateUserGroup(group))
	})
	return g, err
}

// changeGroup runs fn on a group in one transaction and writes the audit event that fn answers.
func (s *Service) changeGroup(ctx context.Context, id int64, fn func(tx *storage.Tx, g *storage.UserGroup) (string, error)) error {
	a, err := needPermission(ctx, "can_edit_identities")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		g, err := findGroup(tx, id)
		if err != nil {
			return err
		}
		done, err := fn(tx, &g)
		if err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Group '%s': %s", g.Name, done)
	})
}

// DeleteUserGroup removes a group; its members lose what it gave them.
func (s *Service) DeleteUserGroup(ctx context.Context, id int64) error {
	return s.changeGroup(ctx, id, func(tx *storage.Tx, g *storage.UserGroup) (string, error) {
		if g.ID == storage.AdministratorsGroupID || g.ID == storage.UsersGroupID {
			return "", Errorf(Invalid, "The group '%s' is one of the default groups, it cannot be deleted.", g.Name)
		}
		return "Deleted group.", tx.DeleteUserGroup(id)
	})
}

// GroupMembers lists the users of a group by name.
func (s *Service) GroupMembers(ctx context.Context, id int64) (out []storage.User, err error) {
	if _, err := needPermission(ctx, "can_view_identities"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if _, err := findGroup(tx, id); err != nil {
			return err
		}
		out, err = tx.GroupMembers(id)
		return err
	})
	return out, err
}

func groupUser(tx *storage.Tx, username string) (storage.User, error) {
	if username == "" {
		return storage.User{}, Errorf(Invalid, "username is required.")
	}
	u, err := tx.UserByName(username)
	return u, notFound(err, Errorf(NotFound, "User with username %s not found.", firstRunes(username, 150)))
}

// AddGroupMember puts a user into a group.
func (s *Service) AddGroupMember(ctx context.Context, id int64, username string) error {
	return s.changeGroup(ctx, id, func(tx *storage.Tx, g *storage.UserGroup) (string, error) {
		u, err := groupUser(tx, username)
		if err != nil {
			return "", err
		}
		err = tx.Savepoint(func() error { return tx.AddGroupMember(id, u.ID) })
		if errors.Is(err, storage.ErrConflict) {
			return "", Errorf(Conflict, "User '%s' is already a member of group '%s'.", u.Username, g.Name)
		}
		if err == nil && id == storage.AdministratorsGroupID {
			err = tx.SetSuperuser(u.ID, true)
		}
		return fmt.Sprintf("Added member '%s'.", u.Username), err
	})
}

// RemoveGroupMember takes a user out of a group; one that is not in it is no error.
func (s *Service) RemoveGroupMember(ctx context.Context, id int64, username string) error {
	return s.changeGroup(ctx, id, func(tx *storage.Tx, g *storage.UserGroup) (string, error) {
		u, err := groupUser(tx, username)
		if err != nil {
			return "", err
		}
		was, err := tx.RemoveGroupMember(id, u.ID)
		if err == nil && was && id == storage.AdministratorsGroupID {
			if err = tx.SetSuperuser(u.ID, false); err == nil {
				err = oneAdministrator(tx)
			}
		}
		return fmt.Sprintf("Removed member '%s'.", u.Username), err
	})
}

// oneAdministrator refuses a change that leaves no active administrator: nobody could undo it.
func oneAdministrator(tx *storage.Tx) error {
	members, err := tx.GroupMembers(storage.AdministratorsGroupID)
	if err != nil {
		return err
	}
	for _, u := range members {
		if u.IsActive {
			return nil
		}
	}
	return Errorf(Invalid, "The last administrator cannot go: make somebody else one first.")
}

// GroupEntitlements lists what a group gives.
func (s *Service) GroupEntitlements(ctx context.Context, id int64) (out []storage.GroupEntitlement, err error) {
	if _, err := needPermission(ctx, "can_view_identities"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if _, err := findGroup(tx, id); err != nil {
			return err
		}
		out, err = tx.GroupEntitlements(id)
		return err
	})
	return out, err
}

// EntitlementInput names an entitlement as requests do.
type EntitlementInput struct {
	ResourceType string // maas or pool
	ResourceID   int64  // 0 for maas, else the pool's id
	Entitlement  string
}

// pool checks the names and finds the pool; nil for the whole installation.
func (in EntitlementInput) pool() (*int64, error) {
	switch {
	case in.ResourceType != "maas" && in.ResourceType != "pool":
		return nil, Errorf(Invalid, "Invalid resource_type '%s': it is one of maas, pool.", firstRunes(in.ResourceType, 100))
	case in.ResourceID < 0 || in.ResourceType == "maas" && in.ResourceID != 0:
		return nil, Errorf(Invalid, "Invalid resource_id %d for resource type '%s'.", in.ResourceID, in.ResourceType)
	}
	if err := checkEntitlement(in.ResourceType, in.Entitlement); err != nil {
		return nil, err
	}
	if in.ResourceType == "maas" {
		return nil, nil
	}
	return &in.ResourceID, nil
}

func (in EntitlementInput) text() string {
	return fmt.Sprintf("%s on %s %d", in.Entitlement, in.ResourceType, in.ResourceID)
}

// AddGroupEntitlement gives a group an entitlement; one that it has is no error.
func (s *Service) AddGroupEntitlement(ctx context.Context, id int64, in EntitlementInput) error {
	return s.changeGroup(ctx, id, func(tx *storage.Tx, g *storage.UserGroup) (string, error) {
		pool, err := in.pool()
		if err != nil {
			return "", err
		}
		if pool != nil {
			if _, err := tx.Pool(*pool); err != nil {
				return "", notFound(err, Errorf(NotFound, "ResourcePool with id %d not found.", *pool))
			}
		}
		return "Added entitlement " + in.text() + ".", tx.AddGroupEntitlement(id, pool, in.Entitlement)
	})
}

// RemoveGroupEntitlement takes an entitlement from a group; one that it does not have is no error.
func (s *Service) RemoveGroupEntitlement(ctx context.Context, id int64, in EntitlementInput) error {
	return s.changeGroup(ctx, id, func(tx *storage.Tx, g *storage.UserGroup) (string, error) {
		pool, err := in.pool()
		if err != nil {
			return "", err
		}
		if id == storage.AdministratorsGroupID && pool == nil {
			return "", Errorf(Invalid, "The group '%s' keeps its entitlements.", g.Name)
		}
		return "Removed entitlement " + in.text() + ".", tx.RemoveGroupEntitlement(id, pool, in.Entitlement)
	})
}
