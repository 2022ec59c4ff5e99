package provisioner

import (
	"context"
	"errors"
	"net/netip"

	"github.com/ingot-metal/ingot/storage"
)

// StaticRouteInput is what a request says of a static route; nil leaves a field as it is.
type StaticRouteInput struct {
	Source      *string // id or specifier
	Destination *string
	GatewayIP   *string
	Metric      *int64
}

// RouteBook is static routes with what their rendering refers to.
type RouteBook struct {
	Routes []storage.StaticRoute
	Cat    *storage.Catalogue
}

// StaticRoutes returns all routes.
func (s *Service) StaticRoutes(ctx context.Context) (RouteBook, error) {
	return s.readRoutes(ctx, func(tx *storage.Tx) ([]storage.StaticRoute, error) { return tx.StaticRoutes() })
}

// StaticRoute returns one.
func (s *Service) StaticRoute(ctx context.Context, id int64) (RouteBook, error) {
	return s.readRoutes(ctx, func(tx *storage.Tx) ([]storage.StaticRoute, error) {
		x, err := tx.StaticRoute(id)
		return []storage.StaticRoute{x}, found("StaticRoute", err)
	})
}

func (s *Service) readRoutes(ctx context.Context, fn func(tx *storage.Tx) ([]storage.StaticRoute, error)) (b RouteBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if b.Routes, err = fn(tx); err != nil {
			return err
		}
		b.Cat, err = tx.LoadCatalogue()
		return err
	})
	return b, err
}

// apply checks the fields and sets them.
func (in StaticRouteInput) apply(c *storage.Catalogue, x *storage.StaticRoute) error {
	f := form{}
	create := x.ID == 0
	subnet := func(field string, spec *string, to *int64) {
		if spec == nil || *spec == "" {
			if create || spec != nil {
				f.add(field, msgRequired)
			}
			return
		}
		sn, err := FindSubnet(c, *spec)
		if err != nil {
			f.add(field, msgNoChoice)
			return
		}
		*to = sn.ID
	}
	subnet("source", in.Source, &x.SourceID)
	subnet("destination", in.Destination, &x.DestinationID)
	switch {
	case in.GatewayIP != nil && *in.GatewayIP != "":
		a, err := netip.ParseAddr(*in.GatewayIP)
		if err != nil || a.Zone() != "" {
			f.add("gateway_ip", msgIP)
			break
		}
		x.GatewayIP = a.Unmap()
	case create || in.GatewayIP != nil:
		f.add("gateway_ip", msgRequired)
	}
	if in.Metric != nil {
		switch {
		case *in.Metric < 0:
			f.add("metric", "Ensure this value is greater than or equal to 0.")
		case *in.Metric > 1<<31-1:
			f.add("metric", "Ensure this value is less than or equal to 2147483647.")
		}
		x.Metric = *in.Metric
	}
	if len(f) > 0 {
		return f.err()
	}
	source, destination := c.Subnets[x.SourceID], c.Subnets[x.DestinationID]
	switch {
	case source.ID == destination.ID:
		return FieldError("__all__", "source and destination cannot be the same subnet.")
	case source.FirstIP.Is6() != destination.FirstIP.Is6():
		return FieldError("__all__", "source and destination must be the same IP version.")
	case x.GatewayIP.Less(source.FirstIP) || source.LastIP.Less(x.GatewayIP) || x.GatewayIP.Is6() != source.FirstIP.Is6():
		return FieldError("__all__", "gateway_ip must be with in the source subnet.")
	}
	return nil
}

// CreateStaticRoute makes a route.
func (s *Service) CreateStaticRoute(ctx context.Context, in StaticRouteInput) (RouteBook, error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return RouteBook{}, err
	}
	return s.changeRoute(ctx, func(tx *storage.Tx, c *storage.Catalogue) (x storage.StaticRoute, err error) {
		if err := in.apply(c, &x); err != nil {
			return x, err
		}
		return x, tx.InsertStaticRoute(&x)
	})
}

// UpdateStaticRoute changes a route.
func (s *Service) UpdateStaticRoute(ctx context.Context, id int64, in StaticRouteInput) (RouteBook, error) {
	if _, err := needUser(ctx); err != nil {
		return RouteBook{}, err
	}
	return s.changeRoute(ctx, func(tx *storage.Tx, c *storage.Catalogue) (storage.StaticRoute, error) {
		x, err := tx.StaticRoute(id)
		if err != nil {
			return x, found("StaticRoute", err)
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return x, err
		}
		if err := in.apply(c, &x); err != nil {
			return x, err
		}
		return x, tx.UpdateStaticRoute(&x)
	})
}

func (s *Service) changeRoute(ctx context.Context, fn func(tx *storage.Tx, c *storage.Catalogue) (storage.StaticRoute, error)) (b RouteBook, err error) {
	var x storage.StaticRoute
	_, b.Cat, err = s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		err := error(nil)
		if x, err = fn(tx, c); errors.Is(err, storage.ErrConflict) {
			return 0, FieldError("__all__", "Static route with this Source, Destination and Gateway IP already exists.")
		}
		return x.ID, err
	})
	b.Routes = []storage.StaticRoute{x}
	return b, err
}

// DeleteStaticRoute removes a route.
func (s *Service) DeleteStaticRoute(ctx context.Context, id int64) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	_, _, err := s.changeNetwork(ctx, func(tx *storage.Tx, _ *storage.Catalogue) (int64, error) {
		if _, err := tx.StaticRoute(id); err != nil {
			return 0, found("StaticRoute", err)
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return 0, err
		}
		return 0, tx.DeleteStaticRoute(id)
	})
	return err
}

// FindNetwork resolves the name of an old-style network: subnet-<id>, or whatever names a subnet.
func FindNetwork(c *storage.Catalogue, name string) (*storage.Subnet, error) {
	return FindSubnet(c, name)
}

// NetworksOf returns the ids of the subnets that all of these nodes have links to; without nodes, of all subnets.
func (s *Service) NetworksOf(ctx context.Context, systemIDs []string) (ids map[int64]bool, c *storage.Catalogue, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if c, err = tx.LoadCatalogue(); err != nil {
			return err
		}
		ids = map[int64]bool{}
		for id := range c.Subnets {
			ids[id] = true
		}
		if len(systemIDs) == 0 {
			return nil
		}
		nodes, err := tx.Nodes(storage.NodeFilter{SystemIDs: systemIDs})
		if err != nil {
			return err
		}
		known, rows := map[string]bool{}, []int64{}
		for _, n := range nodes {
			known[n.SystemID] = true
			rows = append(rows, n.ID)
		}
		for _, id := range systemIDs {
			if !known[id] {
				return FieldError("node", "Unknown node(s): %s.", id)
			}
		}
		all, err := tx.InterfaceBundles(rows)
		if err != nil {
			return err
		}
		for _, n := range rows {
			linked := map[int64]bool{}
			for _, b := range all[n] {
				for _, a := range b.Links {
					if a.SubnetID != nil {
						linked[*a.SubnetID] = true
					}
				}
			}
			for id := range ids {
				if !linked[id] {
					delete(ids, id)
				}
			}
		}
		return nil
	})
	return ids, c, err
}

// ConnectedMACs returns the MAC addresses of the interfaces that are linked to a network and that the caller may see, sorted.
func (s *Service) ConnectedMACs(ctx context.Context, name string) (macs []string, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		c, err := tx.LoadCatalogue()
		if err != nil {
			return err
		}
		sn, err := FindNetwork(c, name)
		if err != nil {
			return err
		}
		var visible *int64
		if !a.Admin {
			visible = &a.User.ID
		}
		macs, err = tx.LinkedMACs(sn.ID, visible)
		return err
	})
	return macs, err
}
