package provisioner

import (
	"context"
	"errors"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

func isNotFound(err error) bool { return errors.Is(err, storage.ErrNotFound) }

// Pools returns the resource pools of which the caller may see at least the free machines.
func (s *Service) Pools(ctx context.Context) (out []storage.Pool, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		out, err = tx.Pools()
		return err
	})
	return slices.DeleteFunc(out, func(p storage.Pool) bool { return !a.canPool(rightViewAvailable, &p.ID) }), err
}

func findPool(tx *storage.Tx, spec string) (storage.Pool, error) {
	all, err := tx.Pools()
	if err != nil {
		return storage.Pool{}, err
	}
	p, ok := findByIDOrName(all, spec, func(p storage.Pool) (int64, string) { return p.ID, p.Name })
	if !ok {
		return p, noMatch("ResourcePool")
	}
	return p, nil
}

// Pool returns a pool by id or name.
func (s *Service) Pool(ctx context.Context, spec string) (p storage.Pool, err error) {
	if _, err := needUser(ctx); err != nil {
		return p, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		p, err = findPool(tx, spec)
		if err == nil && !ActorFrom(ctx).canPool(rightViewAvailable, &p.ID) {
			err = &Error{Kind: Forbidden}
		}
		return err
	})
	return p, err
}

// poolEditor answers 403 without a text for those who may not edit the machines of all pools, and so not make or remove one.
func poolEditor(ctx context.Context) error {
	a, err := needUser(ctx)
	if err == nil && !a.Can("can_edit_machines") {
		err = &Error{Kind: Forbidden}
	}
	return err
}

// CreatePool makes a pool.
func (s *Service) CreatePool(ctx context.Context, in Named) (p storage.Pool, err error) {
	if err := poolEditor(ctx); err != nil {
		return p, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		p = storage.Pool{}
		f := form{}
		if in.apply(f, &p.Name, &p.Description); len(f) > 0 {
			return f.err()
		}
		return taken("Resource pool", "name", "Name", tx.InsertPool(&p))
	})
	return p, err
}

// UpdatePool changes a pool.
func (s *Service) UpdatePool(ctx context.Context, spec string, in Named) (p storage.Pool, err error) {
	if _, err := needUser(ctx); err != nil {
		return p, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if p, err = findPool(tx, spec); err != nil {
			return err
		}
		if !ActorFrom(ctx).canPool(rightEdit, &p.ID) {
			return &Error{Kind: Forbidden}
		}
		f := form{}
		if in.apply(f, &p.Name, &p.Description); len(f) > 0 {
			return f.err()
		}
		return taken("Resource pool", "name", "Name", tx.UpdatePool(&p))
	})
	return p, err
}

// DeletePool removes a pool that is empty and not the default one.
func (s *Service) DeletePool(ctx context.Context, spec string) error {
	if err := poolEditor(ctx); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		p, err := findPool(tx, spec)
		if err != nil {
			return err
		}
		if p.ID == storage.DefaultPoolID {
			return Errorf(Invalid, "This is the default pool, it cannot be deleted.")
		}
		n, err := tx.PoolMachines(p.ID)
		if err != nil {
			return err
		}
		if n > 0 {
			return Errorf(Invalid, "Can't delete pool %s: it contains %d machine(s). Move them to another pool first.", p.Name, n)
		}
		return tx.DeletePool(p.ID)
	})
}
