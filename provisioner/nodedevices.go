package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// deviceInventory is what the inventory says of PCI and USB devices, and of what hangs on them.
type deviceInventory struct {
	Resources struct {
		PCI struct {
			Devices []struct {
				VendorID   string `json:"vendor_id"`
				ProductID  string `json:"product_id"`
				PCIAddress string `json:"pci_address"`
				Driver     string `json:"driver"`
				Vendor     string `json:"vendor"`
				Product    string `json:"product"`
				NUMANode   int64  `json:"numa_node"`
				VPD        struct {
					Entries map[string]string `json:"entries"`
				} `json:"vpd"`
			} `json:"devices"`
		} `json:"pci"`
		USB struct {
			Devices []struct {
				VendorID      string `json:"vendor_id"`
				ProductID     string `json:"product_id"`
				Vendor        string `json:"vendor"`
				Product       string `json:"product"`
				BusAddress    int64  `json:"bus_address"`
				DeviceAddress int64  `json:"device_address"`
				Interfaces    []struct {
					Driver string `json:"driver"`
				} `json:"interfaces"`
			} `json:"devices"`
		} `json:"usb"`
		GPU     struct{ Cards []deviceAddress } `json:"gpu"`
		Network struct {
			Cards []struct {
				deviceAddress
				Ports []struct {
					ID      string `json:"id"`
					Address string `json:"address"`
				} `json:"ports"`
			} `json:"cards"`
		} `json:"network"`
		Storage struct {
			Disks []struct {
				deviceAddress
				ID string `json:"id"`
			} `json:"disks"`
		} `json:"storage"`
	} `json:"resources"`
}

type deviceAddress struct {
	PCIAddress string `json:"pci_address"`
	USBAddress string `json:"usb_address"`
}

const maxDevices = 4096

var pciAddress = regexp.MustCompile(`^[0-9a-fA-F]{4,8}:([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.[0-7]$`)

// applyNodeDevices makes the node devices of a machine those of the inventory. A device keeps its row while vendor, product and
// address stay the same.
func (s *Service) applyNodeDevices(tx *storage.Tx, n *storage.Node, data []byte) error {
	var inv deviceInventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return fmt.Errorf("the devices of the inventory: %w", err)
	}
	r := &inv.Resources
	if len(r.PCI.Devices)+len(r.USB.Devices) > maxDevices {
		return errors.New("the inventory has too many devices")
	}
	fresh, err := s.labelledDevices(tx, n, &inv)
	if err != nil {
		return err
	}
	have, err := tx.NodeDevices([]int64{n.ID})
	if err != nil {
		return err
	}
	key := func(d *storage.HardwareDevice) string {
		return strings.Join([]string{fmt.Sprint(d.Bus), d.VendorID, d.ProductID, deref(d.PCIAddress, ""), fmt.Sprint(d.BusNumber), fmt.Sprint(d.DeviceNumber)}, "|")
	}
	old := map[string]*storage.HardwareDevice{}
	for i := range have {
		old[key(&have[i])] = &have[i]
	}
	seen := map[string]bool{}
	var save []*storage.HardwareDevice
	for i := range fresh {
		d := &fresh[i]
		k := key(d)
		if seen[k] {
			continue
		}
		seen[k] = true
		if o := old[k]; o != nil {
			d.ID, d.Created = o.ID, o.Created
		}
		save = append(save, d)
	}
	var gone []int64
	for k, o := range old {
		if !seen[k] {
			gone = append(gone, o.ID)
		}
	}
	if len(gone) > 0 {
		if err := tx.DeleteNodeDevices(gone); err != nil {
			return err
		}
	}
	for _, d := range save {
		if err := tx.SaveNodeDevice(d); err != nil {
			return err
		}
	}
	return nil
}

// labelledDevices are the devices of an inventory with what they are: a device is a NIC, a disk or a GPU when one has its address.
func (s *Service) labelledDevices(tx *storage.Tx, n *storage.Node, inv *deviceInventory) ([]storage.HardwareDevice, error) {
	r := &inv.Resources
	nics, err := tx.InterfacesOf([]int64{n.ID})
	if err != nil {
		return nil, err
	}
	disks, err := tx.BlockDevices(n.ID)
	if err != nil {
		return nil, err
	}
	type label struct {
		kind      int64
		nic, disk *int64
	}
	labels := map[string]label{}
	set := func(a deviceAddress, l label) {
		for _, at := range []string{a.PCIAddress, a.USBAddress} {
			if at != "" {
				labels[at] = l
			}
		}
	}
	for _, c := range r.GPU.Cards {
		set(c, label{kind: HardwareGPU})
	}
	for _, d := range r.Storage.Disks {
		l := label{kind: HardwareStorage}
		if i := slices.IndexFunc(disks, func(b storage.BlockDevice) bool { return b.Name == d.ID }); i >= 0 {
			l.disk = &disks[i].ID
		}
		set(d.deviceAddress, l)
	}
	for _, c := range r.Network.Cards {
		l := label{kind: HardwareNetwork}
		for _, p := range c.Ports {
			mac, _ := NormalMAC(p.Address)
			if i := slices.IndexFunc(nics, func(x storage.Interface) bool { return x.MACAddress == mac && mac != "" }); i >= 0 && l.nic == nil {
				l.nic = &nics[i].ID
			}
		}
		set(c.deviceAddress, l)
	}
	var out []storage.HardwareDevice
	for _, d := range r.PCI.Devices {
		m := pciAddress.FindStringSubmatch(d.PCIAddress)
		if m == nil || d.VendorID == "" || d.ProductID == "" {
			continue
		}
		bus, _ := strconv.ParseInt(m[1], 16, 64) // two digits by the expression
		dev, _ := strconv.ParseInt(m[2], 16, 64)
		l, at := labels[d.PCIAddress], d.PCIAddress
		row := storage.HardwareDevice{NodeID: n.ID, Bus: storage.BusPCIE, HardwareType: l.kind, InterfaceID: l.nic, BlockDeviceID: l.disk, VendorID: clip(d.VendorID),
			ProductID: clip(d.ProductID), VendorName: clip(d.Vendor), ProductName: clip(d.Product), Driver: clip(d.Driver), BusNumber: bus, DeviceNumber: dev,
			PCIAddress: &at, NUMANode: min(max(d.NUMANode, 0), 1<<16)}
		if e := d.VPD.Entries; len(e) > 0 {
			clean := map[string]string{}
			for k, v := range e {
				if len(clean) < 64 {
					clean[clip(k)] = clip(v)
				}
			}
			row.VPD = rawJSON(clean)
		}
		out = append(out, row)
	}
	for _, d := range r.USB.Devices {
		if d.VendorID == "" || d.ProductID == "" || d.BusAddress < 0 || d.DeviceAddress < 0 || d.BusAddress > 1<<16 || d.DeviceAddress > 1<<16 {
			continue
		}
		l := labels[fmt.Sprintf("%d:%d", d.BusAddress, d.DeviceAddress)]
		var drivers []string
		for _, i := range d.Interfaces {
			if i.Driver != "" && !slices.Contains(drivers, i.Driver) {
				drivers = append(drivers, i.Driver)
			}
		}
		out = append(out, storage.HardwareDevice{NodeID: n.ID, Bus: storage.BusUSB, HardwareType: l.kind, InterfaceID: l.nic, BlockDeviceID: l.disk,
			VendorID: clip(d.VendorID), ProductID: clip(d.ProductID), VendorName: clip(d.Vendor), ProductName: clip(d.Product),
			Driver: clip(strings.Join(drivers, ", ")), BusNumber: d.BusAddress, DeviceNumber: d.DeviceAddress})
	}
	return out, nil
}

// NodeDeviceFilter chooses node devices; nil chooses all. Texts are compared without regard to case.
type NodeDeviceFilter struct {
	Bus, HardwareType                                           *int64
	VendorID, ProductID, VendorName, ProductName, Commissioning *string
}

func (f NodeDeviceFilter) wants(d *storage.HardwareDevice) bool {
	same := func(want *string, have string) bool { return want == nil || strings.EqualFold(*want, have) }
	return (f.Bus == nil || *f.Bus == d.Bus) && (f.HardwareType == nil || *f.HardwareType == d.HardwareType) && same(f.VendorID, d.VendorID) &&
		same(f.ProductID, d.ProductID) && same(f.VendorName, d.VendorName) && same(f.ProductName, d.ProductName) && same(f.Commissioning, d.Driver)
}

// ParseBus reads a bus in words or as a number.
func ParseBus(word string) (int64, bool) {
	n, ok := map[string]int64{"pcie": storage.BusPCIE, "1": storage.BusPCIE, "usb": storage.BusUSB, "2": storage.BusUSB}[strings.ToLower(word)]
	return n, ok
}

// NodeDevices lists the PCI and USB devices of a node that the caller may see, beside the node.
func (s *Service) NodeDevices(ctx context.Context, systemID string, f NodeDeviceFilter) (b *storage.Bundle, out []storage.HardwareDevice, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if b, err = tx.LoadMachine(systemID); err != nil {
			return found("Node", err)
		}
		if err := checkPerm(ctx, &b.Node, permView); err != nil {
			return err
		}
		all, err := tx.NodeDevices([]int64{b.Node.ID})
		out = slices.DeleteFunc(all, func(d storage.HardwareDevice) bool { return !f.wants(&d) })
		return err
	})
	return b, out, err
}

// NodeDevice reads one of them: by number, by its two numbers on the bus, or by its PCI address.
func (s *Service) NodeDevice(ctx context.Context, systemID, spec string) (b *storage.Bundle, d storage.HardwareDevice, err error) {
	b, all, err := s.NodeDevices(ctx, systemID, NodeDeviceFilter{})
	if err != nil {
		return b, d, err
	}
	d, err = pickDevice(all, spec)
	return b, d, err
}

func pickDevice(all []storage.HardwareDevice, spec string) (storage.HardwareDevice, error) {
	_, nerr := strconv.ParseInt(spec, 10, 64)
	for _, d := range all {
		if nerr == nil && spec == strconv.FormatInt(d.ID, 10) ||
			nerr != nil && (d.PCIAddress != nil && strings.EqualFold(*d.PCIAddress, spec) || fmt.Sprintf("%d:%d", d.BusNumber, d.DeviceNumber) == spec) {
			return d, nil
		}
	}
	if nerr != nil {
		return storage.HardwareDevice{}, Errorf(Invalid, "Invalid id format!")
	}
	return storage.HardwareDevice{}, noMatch("NodeDevice")
}

// DeleteNodeDevice forgets a device until the next commissioning finds it.
func (s *Service) DeleteNodeDevice(ctx context.Context, systemID, spec string) error {
	if _, err := needPermission(ctx, "can_edit_machines"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := viewNode(ctx, tx, systemID)
		if err != nil {
			return err
		}
		all, err := tx.NodeDevices([]int64{n.ID})
		if err != nil {
			return err
		}
		d, err := pickDevice(all, spec)
		if err != nil {
			return err
		}
		return tx.DeleteNodeDevices([]int64{d.ID})
	})
}
