package provisioner

import (
	"context"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// UndefinedSpace is the name of the pseudo space of all VLANs that are in none. Its id is -1.
const UndefinedSpace = "undefined"

// IsUndefinedSpace says whether a path element or parameter means the pseudo space.
func IsUndefinedSpace(spec string) bool { return spec == UndefinedSpace || spec == "-1" }

func applySpace(in Named, f form, x *storage.Space) {
	x.Name = deref(in.Name, x.Name)
	x.Description = deref(in.Description, x.Description)
	f.text("name", x.Name, 256, netName)
	f.text("description", x.Description, descriptionLimit, nil)
	if x.Name == UndefinedSpace {
		f.add("name", "Reserved space name.")
	}
	if n, ok := strings.CutPrefix(x.Name, "space-"); ok {
		if id, err := strconv.ParseInt(n, 10, 64); err == nil && id != x.ID {
			f.add("name", "Reserved space name.")
		}
	}
}

// CreateSpace makes a space. Without a name it is called space-<id>.
func (s *Service) CreateSpace(ctx context.Context, in Named) (int64, *storage.Catalogue, error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, _ *storage.Catalogue) (int64, error) {
		x := storage.Space{}
		f := form{}
		if applySpace(in, f, &x); len(f) > 0 {
			return 0, f.err()
		}
		err := tx.InsertSpace(&x)
		return x.ID, taken("Space", "name", "Name", err)
	})
}

// UpdateSpace changes a space.
func (s *Service) UpdateSpace(ctx context.Context, spec string, in Named) (int64, *storage.Catalogue, error) {
	if _, err := needObjectAdmin(ctx); err != nil {
		return 0, nil, err
	}
	if IsUndefinedSpace(spec) {
		return 0, nil, Errorf(Invalid, "Space cannot be modified: undefined")
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		hit, err := FindSpace(c, spec)
		if err != nil {
			return 0, err
		}
		x, err := tx.Space(hit.ID)
		if err != nil {
			return 0, err
		}
		f := form{}
		if applySpace(in, f, &x); len(f) > 0 {
			return 0, f.err()
		}
		if x.Name == "" {
			x.Name = "space-" + strconv.FormatInt(x.ID, 10)
		}
		return x.ID, taken("Space", "name", "Name", tx.UpdateSpace(&x))
	})
}

// DeleteSpace removes a space; its VLANs are then in none.
func (s *Service) DeleteSpace(ctx context.Context, spec string) error {
	if _, err := needObjectAdmin(ctx); err != nil {
		return err
	}
	if IsUndefinedSpace(spec) {
		return Errorf(Invalid, "Space cannot be deleted: undefined")
	}
	_, _, err := s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		x, err := FindSpace(c, spec)
		if err != nil {
			return 0, err
		}
		return 0, tx.DeleteSpace(x.ID)
	})
	return err
}
