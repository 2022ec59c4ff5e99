package provisioner

import (
	"context"
	"errors"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

// ControllerSpec is what a controller is changed to. A nil pointer leaves the field as it is.
type ControllerSpec struct {
	Description, Domain, Zone, PowerType *string
	PowerParameters                      map[string]string
	SkipPowerCheck                       bool
}

// lockController reads a controller of some types for change.
func lockController(tx *storage.Tx, systemID string, types []int64) (*storage.Node, error) {
	n, err := tx.LockNodeBySystemID(systemID)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !slices.Contains(types, n.NodeType) {
		return nil, noMatch(nodeModel(types))
	}
	return &n, err
}

// UpdateController changes a controller.
func (s *Service) UpdateController(ctx context.Context, systemID string, spec ControllerSpec, types ...int64) error {
	if _, err := needPermission(ctx, "can_edit_controllers"); err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) error {
		n, err := lockController(tx, systemID, types)
		if err != nil {
			return err
		}
		fields := fieldErrors{}
		if err := s.applySpec(tx, n, MachineSpec{Description: spec.Description, Domain: spec.Domain, Zone: spec.Zone, PowerType: spec.PowerType,
			PowerParameters: spec.PowerParameters, SkipPowerCheck: spec.SkipPowerCheck}, fields, false); err != nil {
			return err
		}
		if err := fields.err(); err != nil {
			return err
		}
		if err := s.touchRevision(tx, n); err != nil {
			return err
		}
		return tx.UpdateNode(n)
	})
}

// DeleteRegion forgets a region controller. The one that answers is running, and regions that run register again: whoever wants one gone
// ends it first, and names it by force.
func (s *Service) DeleteRegion(ctx context.Context, systemID string, force bool) error {
	if _, err := needPermission(ctx, "can_edit_controllers"); err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) error {
		n, err := lockController(tx, systemID, []int64{storage.NodeRegion, storage.NodeRegionRack})
		if err != nil {
			return err
		}
		others, err := tx.Nodes(storage.NodeFilter{Types: []int64{storage.NodeRegion, storage.NodeRegionRack}})
		if err != nil {
			return err
		}
		if len(others) < 2 || !force || n.NodeType == storage.NodeRegionRack {
			return Errorf(Invalid, "Region controller %s cannot be deleted: it may be running. End it, and delete it by force while another region runs.", n.Hostname)
		}
		return s.deleteNode(tx, n, force)
	})
}

// ControllerPowerParameters are the power parameters of racks, or of those named.
func (s *Service) ControllerPowerParameters(ctx context.Context, systemIDs []string, types ...int64) (map[string]map[string]string, error) {
	if _, err := needPermission(ctx, "can_edit_machines"); err != nil {
		return nil, err
	}
	out := map[string]map[string]string{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		nodes, err := tx.Nodes(storage.NodeFilter{Types: types, SystemIDs: systemIDs})
		for _, n := range nodes {
			out[n.SystemID] = powerParams(&n)
		}
		return err
	})
	return out, err
}

// ControllerPower switches a controller on or off. ordered is false when the server has nothing to do it by.
func (s *Service) ControllerPower(ctx context.Context, systemID, action string, soft bool, comment string, types ...int64) (ordered bool, err error) {
	err = s.write(ctx, func(tx *storage.Tx) error {
		ordered = false
		n, err := lockController(tx, systemID, types)
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, n, permEdit); err != nil {
			return err
		}
		if n.PowerType == "manual" || n.PowerType == "" && action == PowerOff {
			return nil // somebody goes there and does it
		}
		if n.PowerType == "" {
			return Errorf(Unavailable, "The server cannot switch %s on: it has no power type.", n.Hostname)
		}
		ev := evReqStart
		if action == PowerOff {
			ev = evReqStop
		}
		if err := s.userEvent(tx, n, ev, comment); err != nil {
			return err
		}
		ordered = true
		_, err = s.power(tx, n, action, soft)
		return err
	})
	return ordered, err
}

// ControllerState refuses, in the words of machines, an operation for a state that a controller is not in.
func (s *Service) ControllerState(ctx context.Context, systemID string, admin bool, refusal string, types ...int64) error {
	return s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && !slices.Contains(types, n.NodeType) {
			return noMatch(nodeModel(types))
		}
		if err != nil {
			return err
		}
		perm := permEdit
		if admin {
			perm = permAdmin
		}
		if err := checkPerm(ctx, &n, perm); err != nil {
			return err
		}
		return Errorf(Conflict, refusal, n.SystemID, n.Status)
	})
}

// BootImage is an image that racks can serve.
type BootImage struct {
	Name, Architecture string
	Subarches          []string
}
