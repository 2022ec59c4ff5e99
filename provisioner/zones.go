package provisioner

import (
	"context"

	"github.com/ingot-metal/ingot/storage"
)

// Named is what a request says of something that has a name and a description: nil leaves a field as it is.
type Named struct {
	Name        *string
	Description *string
}

// apply checks the fields and sets them.
func (n Named) apply(f form, name, description *string) {
	if n.Name != nil {
		*name = *n.Name
	}
	if n.Description != nil {
		*description = *n.Description
	}
	if *name == "" {
		f.add("name", msgRequired)
	}
	f.text("name", *name, 256, modelName)
	f.text("description", *description, descriptionLimit, nil)
}

// Zones returns all zones by name.
func (s *Service) Zones(ctx context.Context) (out []storage.Zone, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		out, err = tx.Zones()
		return err
	})
	return out, err
}

// Zone returns a zone by name.
func (s *Service) Zone(ctx context.Context, name string) (z storage.Zone, err error) {
	if _, err := needUser(ctx); err != nil {
		return z, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		z, err = tx.ZoneByName(name)
		return found("Zone", err)
	})
	return z, err
}

// CreateZone makes a zone.
func (s *Service) CreateZone(ctx context.Context, in Named) (z storage.Zone, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return z, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		z = storage.Zone{}
		f := form{}
		if in.apply(f, &z.Name, &z.Description); len(f) > 0 {
			return f.err()
		}
		return taken("Physical zone", "name", "Name", tx.InsertZone(&z))
	})
	return z, err
}

// UpdateZone changes a zone; the default one may be renamed too.
func (s *Service) UpdateZone(ctx context.Context, name string, in Named) (z storage.Zone, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return z, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if z, err = tx.ZoneByName(name); err != nil {
			return found("Zone", err)
		}
		f := form{}
		if in.apply(f, &z.Name, &z.Description); len(f) > 0 {
			return f.err()
		}
		return taken("Physical zone", "name", "Name", tx.UpdateZone(&z))
	})
	return z, err
}

// DeleteZone removes a zone and moves its nodes to the default one. An unknown zone is no error: MAAS deletes what is left.
func (s *Service) DeleteZone(ctx context.Context, name string) error {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		z, err := tx.ZoneByName(name)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if z.ID == storage.DefaultZoneID {
			return Errorf(Invalid, "This zone is the default zone, it cannot be deleted.")
		}
		return tx.DeleteZone(z.ID, storage.DefaultZoneID)
	})
}
