package provisioner

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

// BridgeAll asks for a bridge on every interface of a machine that is acquired.
type BridgeAll struct {
	Wanted bool
	Type   *string
	STP    *bool
	FD     *int64
}

// input is the form of one such bridge.
func (b BridgeAll) input(parent *storage.InterfaceBundle) InterfaceInput {
	name := acquiredBridgeName(parent.Name)
	return InterfaceInput{Name: &name, Parents: []string{fmt.Sprint(parent.ID)}, NICParams: NICParams{BridgeType: b.Type, BridgeSTP: b.STP, BridgeFD: b.FD}}
}

// acquiredBridgeName is br-<interface>, or b-<interface>, or a digest in place of what the kernel has no room for.
func acquiredBridgeName(parent string) string {
	if name := "br-" + parent; len(name) <= kernelNameSize {
		return name
	}
	if name := "b-" + parent; len(name) <= kernelNameSize {
		return name
	}
	sum := fmt.Sprintf("%05x", crc32.ChecksumIEEE([]byte(parent))&0xfffff)
	return "b-" + sum + "-" + parent[len(parent)-(kernelNameSize-8):]
}

// bridgeInterfaces puts a bridge on each interface of a machine that is in no bond and no bridge. Links move up to the bridge.
func (s *Service) bridgeInterfaces(tx *storage.Tx, n *storage.Node, opts BridgeAll) error {
	if !opts.Wanted {
		return nil
	}
	all, err := loadInterfaces(tx, *n)
	if err != nil {
		return err
	}
	for _, b := range all.Interfaces {
		if b.Type != nicPhysical && b.Type != nicBond && b.Type != nicVLAN || !b.Interface.Enabled ||
			slices.ContainsFunc(b.Above, func(a *storage.InterfaceBundle) bool { return a.Type == nicBond || a.Type == nicBridge }) {
			continue
		}
		links := slices.DeleteFunc(slices.Clone(b.Links), func(a storage.IPAddress) bool { return a.AllocType == storage.AllocDiscovered })
		b.Links = slices.DeleteFunc(b.Links, func(a storage.IPAddress) bool { return a.AllocType != storage.AllocDiscovered })
		i, err := s.insertNIC(tx, n, all, nicBridge, opts.input(b))
		if err != nil {
			return err
		}
		i.Acquired = true
		if err := tx.UpdateInterface(i); err != nil {
			return err
		}
		if err := moveLinks(tx, links, i.ID, len(links) > 0); err != nil {
			return err
		}
	}
	return tx.BumpNodes([]int64{n.ID})
}

// moveLinks puts links on another interface, in the place of its own.
func moveLinks(tx *storage.Tx, links []storage.IPAddress, to int64, replace bool) error {
	if replace {
		if err := tx.DeleteInterfaceAddresses(to, storage.AllocAuto, storage.AllocSticky, storage.AllocUserReserved, storage.AllocDHCP); err != nil {
			return err
		}
	}
	for _, a := range links {
		a.InterfaceID = &to
		if err := tx.UpdateIPAddress(&a); err != nil {
			return err
		}
	}
	return nil
}

// dropAcquiredBridges ends the bridges that live until the machine is released. Their links move down again.
func (s *Service) dropAcquiredBridges(tx *storage.Tx, nodeID int64) error {
	all, err := tx.InterfaceBundles([]int64{nodeID})
	if err != nil {
		return err
	}
	dropped := false
	for _, b := range all[nodeID] {
		if !b.Acquired || b.Type != nicBridge {
			continue
		}
		dropped = true
		links := slices.DeleteFunc(slices.Clone(b.Links), func(a storage.IPAddress) bool { return a.AllocType == storage.AllocDiscovered })
		if len(b.Below) > 0 {
			if err := moveLinks(tx, links, b.Below[0].ID, len(links) > 0); err != nil {
				return err
			}
			b.Below[0].Links = append(b.Below[0].Links, links...)
		}
		if err := removeNIC(tx, b); err != nil {
			return err
		}
	}
	if !dropped {
		return nil
	}
	return tx.BumpNodes([]int64{nodeID})
}

// RestoreNetworking makes a machine's network what it was after commissioning: its cards, none of what somebody built on them, and the
// first links.
func (s *Service) RestoreNetworking(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if !in(n.Status, storage.StatusReady, storage.StatusFailedTesting) {
			return Errorf(Conflict, "Machine must be in a ready or failed testing state to restore networking configuration.")
		}
		return s.restoreNetworking(tx, n)
	})
}

// RestoreDefaults makes a machine's network and storage what they were after commissioning.
func (s *Service) RestoreDefaults(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if !in(n.Status, storage.StatusReady, storage.StatusFailedTesting) {
			return Errorf(Conflict, "Machine must be in a ready or failed testing state to restore default networking and storage configuration.")
		}
		if err := s.restoreNetworking(tx, n); err != nil {
			return err
		}
		return s.defaultLayout(tx, n)
	})
}

// restoreNetworking undoes what was configured on a node. A machine's cards become those of its last inventory, where that is kept.
func (s *Service) restoreNetworking(tx *storage.Tx, n *storage.Node) error {
	all, err := tx.InterfaceBundles([]int64{n.ID})
	if err != nil {
		return err
	}
	for _, b := range all[n.ID] {
		switch {
		case b.Type == nicBond || b.Type == nicBridge || b.Type == nicVLAN:
			err = tx.DeleteInterface(b.ID)
		default:
			err = clearLinks(tx, b)
		}
		if err != nil {
			return err
		}
	}
	if n.NodeType == storage.NodeMachine {
		inv, err := s.lastInventory(tx, n.ID)
		if err != nil {
			return err
		}
		if inv != nil {
			if err := s.applyInterfaces(tx, n, inv, true); err != nil {
				return err
			}
		}
	}
	if err := s.touchRevision(tx, n); err != nil {
		return err
	}
	if err := tx.UpdateNode(n); err != nil {
		return err
	}
	link := "link_up" // devices are configured by hand
	if n.NodeType == storage.NodeMachine {
		if link, err = s.settingText(tx, "default_boot_interface_link_type", "auto"); err != nil {
			return err
		}
	}
	return s.setInitialLinks(tx, n.ID, link)
}

// lastInventory is what the machine reported when it was commissioned last; nil when nothing usable is kept.
func (s *Service) lastInventory(tx *storage.Tx, nodeID int64) (*inventory, error) {
	set, err := tx.CurrentScriptSet(nodeID, storage.SetCommissioning)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := tx.ScriptResult(set.ID, InventoryScript)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, text := range [][]byte{r.Stdout, r.Output} {
		if inv, err := parseInventory(text); err == nil && len(inv.Networks) > 0 {
			return inv, nil
		}
	}
	return nil, nil
}
