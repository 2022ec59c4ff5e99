package provisioner

import (
	"context"
	"errors"
	"fmt"

	"github.com/ingot-metal/ingot/storage"
)

// DeviceSpec is what a device is created with or changed to. A nil pointer leaves the field as it is, or at its default.
type DeviceSpec struct {
	Hostname    *string
	Description *string
	Domain      *string // name or id
	Zone        *string
	MACs        []string
	Parent      *string // system_id; empty: none
}

var errNoDevice = Errorf(NotFound, "No Device matches the given query.")

// Device reads one device.
func (s *Service) Device(ctx context.Context, systemID string) (*storage.Bundle, error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	var b *storage.Bundle
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		b, err = tx.LoadMachine(systemID)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) || err == nil && b.Node.NodeType != storage.NodeDevice {
		return nil, errNoDevice
	}
	if err != nil {
		return nil, err
	}
	return b, checkPerm(ctx, &b.Node, permView)
}

// changeDevice runs fn on a device that the caller may change, in one transaction, and returns the device as it is then.
func (s *Service) changeDevice(ctx context.Context, systemID string, p nodePerm, fn func(tx *storage.Tx, n *storage.Node) error) (*storage.Bundle, error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	var b *storage.Bundle
	err := s.write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeDevice {
			return errNoDevice
		}
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, &n, p); err != nil {
			return err
		}
		if err := fn(tx, &n); err != nil {
			return err
		}
		b, err = tx.LoadMachine(systemID)
		return err
	})
	return b, err
}

// applyDevice checks a form against the store and writes it into n, which it does not save. What is wrong goes into fields.
func (s *Service) applyDevice(tx *storage.Tx, n *storage.Node, spec DeviceSpec, fields fieldErrors, create bool) error {
	if spec.Parent != nil && *spec.Parent == "" {
		n.ParentID = nil
	} else if spec.Parent != nil {
		parent, err := tx.Node(*spec.Parent)
		switch {
		case errors.Is(err, storage.ErrNotFound) || err == nil && n.ID != 0 && parent.ID == n.ID:
			fields["parent"] = append(fields["parent"], msgChoice(*spec.Parent))
		case err != nil:
			return err
		default:
			if n.ParentID = &parent.ID; create {
				n.DomainID = parent.DomainID
			}
		}
	}
	return s.applySpec(tx, n, MachineSpec{Hostname: spec.Hostname, Description: spec.Description, Domain: spec.Domain, Zone: spec.Zone}, fields, create)
}

// CreateDevice adds a device that belongs to the caller.
func (s *Service) CreateDevice(ctx context.Context, spec DeviceSpec) (*storage.Bundle, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	var b *storage.Bundle
	err = s.write(ctx, func(tx *storage.Tx) error {
		macs, fields := parseMACs(spec.MACs)
		if len(macs) == 0 && len(fields) == 0 {
			fields.add("mac_addresses", msgRequired)
		}
		domain, err := tx.DefaultDomain()
		if err != nil {
			return err
		}
		n := &storage.Node{NodeType: storage.NodeDevice, Status: storage.StatusNew, OwnerID: a.ID(), ZoneID: storage.DefaultZoneID,
			DomainID: domain.ID, PowerState: "unknown"}
		if err := s.applyDevice(tx, n, spec, fields, true); err != nil {
			return err
		}
		for _, mac := range macs {
			owner, err := tx.NodeByMAC(mac)
			if err == nil {
				fields.add("mac_addresses", fmt.Sprintf("MAC address %s already in use on %s.", mac, owner.Hostname))
			} else if !errors.Is(err, storage.ErrNotFound) {
				return err
			}
		}
		if err := fields.err(); err != nil {
			return err
		}
		if err := s.insertMachine(tx, n); err != nil {
			return err
		}
		if err := s.addMACs(tx, n, macs, spec.MACs); err != nil {
			return err
		}
		b, err = tx.LoadMachine(n.SystemID)
		return err
	})
	return b, err
}

// UpdateDevice changes a device.
func (s *Service) UpdateDevice(ctx context.Context, systemID string, spec DeviceSpec) (*storage.Bundle, error) {
	return s.changeDevice(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		fields := fieldErrors{}
		if err := s.applyDevice(tx, n, spec, fields, false); err != nil {
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

// DeleteDevice removes a device.
func (s *Service) DeleteDevice(ctx context.Context, systemID string) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	return s.write(ctx, func(tx *storage.Tx) error {
		n, err := tx.LockNodeBySystemID(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeDevice {
			return errNoDevice
		}
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, &n, permEdit); err != nil {
			return err
		}
		return s.deleteNode(tx, &n, false)
	})
}

// RestoreDevice undoes what was configured on a device's interfaces.
func (s *Service) RestoreDevice(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.changeDevice(ctx, systemID, permAdmin, s.restoreNetworking)
}

// SetOwnerData writes workload annotations; an empty value removes its key. Only the owner may.
func (s *Service) SetOwnerData(ctx context.Context, systemID string, data map[string]string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		return setOwnerData(ctx, tx, n, data)
	})
}

func setOwnerData(ctx context.Context, tx *storage.Tx, n *storage.Node, data map[string]string) error {
	if a := ActorFrom(ctx); n.OwnerID == nil || *n.OwnerID != a.User.ID {
		return Errorf(Conflict, "Owner data can only be set by the machine's owner: acquire the machine first.")
	}
	for k := range data {
		if k == "" || len(k) > 255 {
			return Errorf(Invalid, "A key of owner data has between 1 and 255 characters.")
		}
	}
	return tx.SetOwnerData(n.ID, data)
}

// SetDeviceData writes a device's workload annotations; an empty value removes its key. Only the owner may.
func (s *Service) SetDeviceData(ctx context.Context, systemID string, data map[string]string) (*storage.Bundle, error) {
	return s.changeDevice(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		return setOwnerData(ctx, tx, n, data)
	})
}

// DevicePowerParameters answers the power parameters of a device, which has none, for administrators.
func (s *Service) DevicePowerParameters(ctx context.Context, systemID string) (map[string]string, error) {
	b, err := s.Device(ctx, systemID)
	if err != nil {
		return nil, err
	}
	return powerParams(&b.Node), checkPerm(ctx, &b.Node, permAdminRead)
}

// dropChildren removes the devices that live on a machine: containers end with what they run on.
func (s *Service) dropChildren(tx *storage.Tx, n *storage.Node) error {
	children, err := tx.Nodes(storage.NodeFilter{ParentID: &n.ID, Types: []int64{storage.NodeDevice}})
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := tx.DeleteNode(c.ID); err != nil {
			return err
		}
	}
	return nil
}
