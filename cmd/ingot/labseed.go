package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/bootsrv/dhcp"
	"github.com/ingot-metal/ingot/bootsrv/loaders"
)

// The lab's network. It exists in the region's records only: packets go over loopback.
const (
	labSmall = "10.77.0.0/24" // up to a hundred machines
	labLarge = "10.77.0.0/16"
	labRackA = "10.77.0.1"
)

// labInterfaces are what a rack says of itself so that the region gives it the lab's VLAN.
func labInterfaces() []api.RackInterface {
	return []api.RackInterface{{Name: "lab0", MAC: "52:54:00:77:ff:01", Addresses: []string{labRackA + "/24"}}}
}

// labListener answers DHCP on loopback to where packets come from.
func labListener(addr string) dhcp.Listener {
	return dhcp.Listener{Addr: addr, ReplyToSource: true, RackAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// seedLab makes the lab's subnet with a dynamic range and switches DHCP on, through the API like any administrator. What is
// there already stays as it is.
func seedLab(ctx context.Context, c *client.Client, rackID string, machines int) error {
	cidr, start, end := labSmall, "10.77.0.100", "10.77.0.249"
	if machines > 100 {
		cidr, start, end = labLarge, "10.77.128.0", "10.77.255.249"
	}
	subnets, err := c.SubnetsList(ctx, api.SubnetsListParams{})
	if err != nil {
		return fmt.Errorf("lab network: %w", err)
	}
	var sub *api.Subnet
	for i := range subnets {
		if subnets[i].CIDR == labSmall || subnets[i].CIDR == labLarge {
			sub = &subnets[i]
		}
	}
	if sub == nil {
		fabrics, err := c.FabricsList(ctx, api.FabricsListParams{})
		if err != nil {
			return fmt.Errorf("lab network: %w", err)
		}
		if len(fabrics) == 0 || len(fabrics[0].VLANs) == 0 {
			return errors.New("lab network: there is no fabric with a VLAN")
		}
		made, err := c.SubnetsCreate(ctx, api.SubnetsCreateParams{CIDR: cidr, Name: ptr("lab"), VLAN: &fabrics[0].VLANs[0].ID, GatewayIP: ptr(labRackA), DNSServers: []string{labRackA}})
		if err != nil {
			return fmt.Errorf("lab network: %w", err)
		}
		sub = &made
	}
	ranges, err := c.IpRangesList(ctx, api.IpRangesListParams{})
	if err != nil {
		return fmt.Errorf("lab network: %w", err)
	}
	dynamic := false
	for _, r := range ranges {
		dynamic = dynamic || r.Type == "dynamic" && r.Subnet.ID == sub.ID
	}
	if !dynamic {
		if _, err := c.IpRangesCreate(ctx, api.IpRangesCreateParams{Type: "dynamic", StartIP: start, EndIP: end, Subnet: &sub.ID, Comment: ptr("lab machines")}); err != nil {
			return fmt.Errorf("lab network: %w", err)
		}
	}
	if !sub.VLAN.DHCPOn {
		if _, err := c.VlanUpdate(ctx, api.VlanUpdateParams{VLANID: &sub.VLAN.ID, DHCPOn: ptr(true), PrimaryRack: &rackID}); err != nil {
			return fmt.Errorf("lab network: DHCP: %w", err)
		}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// labLoaders writes stand-ins for the boot loaders that are not installed here and returns their folder: DHCP offers only what
// the rack has, and lab machines act as the loader that a file's name says. Real machines need the packages.
func labLoaders(dir string) (string, []string, error) {
	if err := os.RemoveAll(dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	var names []string
	for _, m := range loaders.Find(loaders.Options{}).Missing("amd64") {
		text := fmt.Sprintf("%s(%s is in the Debian package %s.)\n", labNote, m.Name, m.Package)
		if err := os.WriteFile(filepath.Join(dir, m.Name), []byte(text), 0o644); err != nil {
			return "", nil, err
		}
		names = append(names, m.Name)
	}
	return dir, names, nil
}
