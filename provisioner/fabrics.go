package provisioner

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// Networks returns fabrics, VLANs, spaces and subnets, and what their rendering refers to.
func (s *Service) Networks(ctx context.Context) (c *storage.Catalogue, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		c, err = tx.LoadCatalogue()
		return err
	})
	return c, err
}

// changeNetwork runs fn for somebody who may change the network, and returns the networks as they are then. fn returns the id of
// what it made or changed. Racks are told.
func (s *Service) changeNetwork(ctx context.Context, fn func(tx *storage.Tx, c *storage.Catalogue) (int64, error)) (id int64, c *storage.Catalogue, err error) {
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		before, err := tx.LoadCatalogue()
		if err != nil {
			return err
		}
		if id, err = fn(tx, before); err != nil {
			return err
		}
		if _, err := tx.Revision(); err != nil {
			return err
		}
		c, err = tx.LoadCatalogue()
		return err
	})
	return id, c, err
}

// FindFabric resolves a path element: the id, fabric-<id>, or the name.
func FindFabric(c *storage.Catalogue, spec string) (*storage.Fabric, error) {
	return findNet(c.Fabrics, spec, "Fabric", "fabric-", func(f *storage.Fabric, kind, value string) bool {
		return (kind == "" || kind == "name") && f.Name == value || kind == "class" && f.ClassType != nil && *f.ClassType == value
	})
}

// FindSpace resolves a path element: the id, space-<id>, or the name.
func FindSpace(c *storage.Catalogue, spec string) (*storage.Space, error) {
	return findNet(c.Spaces, spec, "Space", "space-", func(s *storage.Space, kind, value string) bool {
		return (kind == "" || kind == "name") && s.Name == value
	})
}

// findNet resolves a specifier, [type:]value, in a table. A number is an id; several matches are 403, as in MAAS.
func findNet[T any](table map[int64]*T, spec, model, prefix string, match func(x *T, kind, value string) bool) (*T, error) {
	kind, value, typed := strings.Cut(spec, ":")
	if !typed || !specKinds[kind] {
		kind, value = "", spec
	}
	if kind == "" || kind == "id" {
		if id, err := strconv.ParseInt(strings.TrimPrefix(value, prefix), 10, 64); err == nil {
			if x := table[id]; x != nil {
				return x, nil
			}
			return nil, noMatch(model)
		}
	}
	var hits []*T
	for _, x := range table {
		if match(x, kind, value) {
			hits = append(hits, x)
		}
	}
	switch len(hits) {
	case 0:
		return nil, noMatch(model)
	case 1:
		return hits[0], nil
	}
	return nil, Errorf(Forbidden, "Too many %s objects match the given query.", model)
}

// specKinds are the types of specifiers; any other text before a colon belongs to the value.
var specKinds = map[string]bool{"id": true, "name": true, "cidr": true, "ip": true, "vid": true, "vlan": true, "fabric": true, "space": true, "class": true, "subnet": true}

// FabricInput is what a request says of a fabric: nil leaves a field as it is.
type FabricInput struct {
	Name        *string
	Description *string
	ClassType   *string
}

func (in FabricInput) apply(f form, x *storage.Fabric) {
	x.Name = deref(in.Name, x.Name)
	x.Description = deref(in.Description, x.Description)
	if in.ClassType != nil {
		if x.ClassType = in.ClassType; *in.ClassType == "" {
			x.ClassType = nil
		}
	}
	f.text("name", x.Name, 256, netName)
	f.text("description", x.Description, descriptionLimit, nil)
	f.text("class_type", deref(x.ClassType, ""), 256, netName)
	if n, ok := strings.CutPrefix(x.Name, "fabric-"); ok {
		if id, err := strconv.ParseInt(n, 10, 64); err == nil && x.ID != id {
			f.add("name", "Reserved fabric name.")
		}
	}
}

// CreateFabric makes a fabric with its default VLAN.
func (s *Service) CreateFabric(ctx context.Context, in FabricInput) (int64, *storage.Catalogue, error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, _ *storage.Catalogue) (int64, error) {
		x := storage.Fabric{ID: -1}
		f := form{}
		if in.apply(f, &x); len(f) > 0 {
			return 0, f.err()
		}
		if err := tx.InsertFabric(&x); err != nil {
			return 0, taken("Fabric", "name", "Name", err)
		}
		untagged := "untagged"
		return x.ID, tx.InsertVLAN(&storage.VLAN{FabricID: x.ID, Name: &untagged, MTU: 1500})
	})
}

// UpdateFabric changes a fabric.
func (s *Service) UpdateFabric(ctx context.Context, spec string, in FabricInput) (int64, *storage.Catalogue, error) {
	if _, err := needObjectAdmin(ctx); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		hit, err := FindFabric(c, spec)
		if err != nil {
			return 0, err
		}
		x, err := tx.Fabric(hit.ID)
		if err != nil {
			return 0, err
		}
		f := form{}
		if in.apply(f, &x); len(f) > 0 {
			return 0, f.err()
		}
		if x.Name == "" {
			x.Name = "fabric-" + strconv.FormatInt(x.ID, 10)
		}
		return x.ID, taken("Fabric", "name", "Name", tx.UpdateFabric(&x))
	})
}

// DeleteFabric removes a fabric that nothing is connected to.
func (s *Service) DeleteFabric(ctx context.Context, spec string) error {
	if _, err := needObjectAdmin(ctx); err != nil {
		return err
	}
	_, _, err := s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		x, err := FindFabric(c, spec)
		if err != nil {
			return 0, err
		}
		if x.ID == storage.DefaultFabricID {
			return 0, Errorf(Invalid, "This fabric is the default fabric, it cannot be deleted.")
		}
		subnets, nics, err := tx.FabricUse(x.ID)
		if err != nil {
			return 0, err
		}
		if subnets > 0 {
			var names []string
			for _, sn := range c.Subnets {
				if v := c.VLANs[sn.VLANID]; v != nil && v.FabricID == x.ID {
					names = append(names, sn.CIDR)
				}
			}
			slices.Sort(names)
			return 0, Errorf(Invalid, "Can't delete fabric; the following subnets are still present: %s", strings.Join(names, ", "))
		}
		if nics > 0 {
			return 0, Errorf(Invalid, "Can't delete fabric; %d interface(s) are still connected.", nics)
		}
		return 0, tx.DeleteFabric(x.ID)
	})
	return err
}
