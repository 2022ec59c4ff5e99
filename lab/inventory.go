package lab

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
)

func equalMAC(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, "-", ":"), b)
}

type object = map[string]any

// inventory is the machine-resources document of this machine: what 50-maas-01-commissioning prints.
func (m *Machine) inventory() ([]byte, error) {
	c := m.cfg
	kernelArch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[c.Arch]
	if kernelArch == "" {
		kernelArch = c.Arch
	}
	var cores []any
	for i := range c.CPUs {
		cores = append(cores, object{"core": i, "frequency": 2600, "threads": []any{object{"id": i, "thread": 0, "online": true, "numa_node": 0}}})
	}
	var disks []any
	for i, d := range m.disks {
		disks = append(disks, object{
			"id": d.Name, "device": fmt.Sprintf("%d:0", 252+i), "model": d.Model, "type": "virtio", "read_only": false, "removable": false,
			"size": d.Size, "block_size": 512, "rpm": 0, "serial": d.Serial, "device_id": "virtio-" + d.Serial, "device_path": fmt.Sprintf("pci-0000:00:%02x.0", 5+i),
			"firmware_version": "", "numa_node": 0, "partitions": []any{},
		})
	}
	memory := int64(c.Memory) << 20
	address, prefix := "", "24"
	m.mu.Lock()
	if m.lease != nil {
		address = m.lease.IP.String()
	}
	m.mu.Unlock()
	addresses := []any{}
	if address != "" {
		addresses = append(addresses, object{"family": "inet", "address": address, "netmask": prefix, "scope": "global"})
	}
	doc := object{
		"api_version": "1.0",
		"api_extensions": []string{
			"resources", "resources_v2", "api_os", "resources_system", "resources_usb_pci", "resources_cpu_socket", "resources_gpu", "resources_numa",
			"resources_disk_sata", "resources_network_firmware", "resources_disk_id", "resources_cpu_threads_numa", "resources_cpu_core_die",
		},
		"environment": object{
			"kernel": "Linux", "kernel_architecture": kernelArch, "kernel_version": "6.1.0-lab", "os_name": "debian", "os_version": "12",
			"server": "maas-machine-resources", "server_name": c.Name, "server_version": "1",
			// Beyond MAAS's document, as Ingot's agent says it: what booted this system, and the hypervisor.
			"firmware": c.Firmware.Mode(), "virtual": "lab",
		},
		"resources": object{
			"cpu": object{"architecture": kernelArch, "total": c.CPUs, "sockets": []any{object{
				"name": "Ingot Lab CPU @ 2.60GHz", "vendor": "Ingot", "socket": 0, "frequency": 2600, "frequency_turbo": 2600, "frequency_minimum": 2600, "cores": cores,
			}}},
			"memory": object{"total": memory, "used": 0, "hugepages_total": 0, "hugepages_used": 0, "hugepages_size": 2 << 20,
				"nodes": []any{object{"numa_node": 0, "total": memory, "used": 0, "hugepages_total": 0, "hugepages_used": 0}}},
			"network": object{"total": 1, "cards": []any{object{
				"driver": "virtio_net", "vendor": "Red Hat, Inc.", "vendor_id": "1af4", "product": "Virtio network device", "product_id": "1000", "numa_node": 0,
				"pci_address": "0000:00:03.0", "firmware_version": "",
				"ports": []any{object{"id": "ens3", "address": c.MAC, "port": 0, "protocol": "ethernet", "supported_modes": []string{"10000baseT/Full"},
					"auto_negotiation": false, "link_detected": true, "link_speed": 10000, "link_duplex": "full"}},
			}}},
			"storage": object{"total": len(disks), "disks": disks},
			"gpu":     object{"total": 0, "cards": []any{}},
			"usb":     object{"total": 0, "devices": []any{}},
			"pci": object{"total": 1, "devices": []any{object{
				"vendor_id": "1af4", "product_id": "1000", "pci_address": "0000:00:03.0", "driver": "virtio-pci", "vendor": "Red Hat, Inc.",
				"product": "Virtio network device", "numa_node": 0, "vpd": object{"entries": object{}},
			}}},
			"system": object{
				"uuid": c.UUID, "vendor": "Ingot", "product": "Lab machine (" + string(c.Firmware) + ")", "family": "lab", "version": "1", "sku": "", "serial": c.Name,
				"type": "virtual-machine", "motherboard": object{"vendor": "Ingot", "product": "Lab board", "serial": "", "version": "1"},
				"firmware": object{"vendor": "Ingot", "date": "01/01/2026", "version": string(c.Firmware)},
				"chassis":  object{"vendor": "Ingot", "type": "Other", "serial": "", "version": "1"},
			},
		},
		"networks": object{
			"lo": object{"type": "loopback", "hwaddr": "", "state": "up", "addresses": []any{object{"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}},
				"bridge": nil, "bond": nil, "vlan": nil},
			"ens3": object{"type": "broadcast", "hwaddr": c.MAC, "state": "up", "addresses": addresses, "bridge": nil, "bond": nil, "vlan": nil},
		},
	}
	return json.MarshalIndent(doc, "", " ")
}

// modaliases is what the kernel would call this machine's devices.
const modaliases = "acpi:ACPI0003:\npci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00\npci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00\n" +
	"cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0001\n"

// element is one element of an XML document that is about to be written.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []element
}

func elem(name, text string, attrs ...string) element {
	e := element{XMLName: xml.Name{Local: name}, Text: text}
	for i := 0; i+1 < len(attrs); i += 2 {
		e.Attrs = append(e.Attrs, xml.Attr{Name: xml.Name{Local: attrs[i]}, Value: attrs[i+1]})
	}
	return e
}

func (e element) with(children ...element) element {
	e.Children = append(e.Children, children...)
	return e
}

func document(root element) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" standalone="yes" ?>` + "\n")
	x := xml.NewEncoder(&b)
	x.Indent("", " ")
	if err := x.Encode(root); err != nil {
		panic("an element of texts does not marshal: " + err.Error()) // a fault of this file
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// lshw is what lshw -xml says on this machine: the tree of its hardware.
func (m *Machine) lshw() []byte {
	c := m.cfg
	bus := elem("node", "", "id", "core", "claimed", "true", "class", "bus").with(elem("description", "Motherboard"), elem("product", "Lab board"), elem("vendor", "Ingot"),
		elem("node", "", "id", "firmware", "claimed", "true", "class", "memory").with(elem("description", "BIOS"), elem("vendor", "Ingot"), elem("version", string(c.Firmware))),
		elem("node", "", "id", "memory", "claimed", "true", "class", "memory").with(elem("description", "System Memory"), elem("size", fmt.Sprint(int64(c.Memory)<<20), "units", "bytes")))
	for i := range c.CPUs {
		bus = bus.with(elem("node", "", "id", fmt.Sprintf("cpu:%d", i), "claimed", "true", "class", "processor").with(elem("description", "CPU"),
			elem("product", "Ingot Lab CPU @ 2.60GHz"), elem("vendor", "Ingot"), elem("size", "2600000000", "units", "Hz"), elem("width", "64", "units", "bits"),
			elem("capabilities", "").with(elem("capability", "64bits extensions", "id", "x86-64"), elem("capability", "virtualization", "id", "vmx"))))
	}
	pci := elem("node", "", "id", "pci", "claimed", "true", "class", "bridge").with(elem("description", "Host bridge"),
		elem("node", "", "id", "network", "claimed", "true", "class", "network", "handle", "PCI:0000:00:03.0").with(elem("description", "Ethernet controller"),
			elem("product", "Virtio network device"), elem("vendor", "Red Hat, Inc."), elem("businfo", "pci@0000:00:03.0"), elem("logicalname", "ens3"), elem("serial", c.MAC),
			elem("configuration", "").with(elem("setting", "", "id", "driver", "value", "virtio_net"), elem("setting", "", "id", "link", "value", "yes"))))
	for i, d := range m.disks {
		pci = pci.with(elem("node", "", "id", fmt.Sprintf("disk:%d", i), "claimed", "true", "class", "disk").with(elem("description", "Virtual I/O device"), elem("product", d.Model),
			elem("logicalname", "/dev/"+d.Name), elem("serial", d.Serial), elem("size", fmt.Sprint(d.Size), "units", "bytes")))
	}
	system := elem("node", "", "id", c.Name, "claimed", "true", "class", "system", "handle", "DMI:0100").with(elem("description", "Computer"),
		elem("product", "Lab machine ("+string(c.Firmware)+")"), elem("vendor", "Ingot"), elem("serial", c.Name), elem("width", "64", "units", "bits"), bus.with(pci))
	return document(elem("list", "").with(system))
}

// lldp is what lldpd has heard on this machine: one switch.
func (m *Machine) lldp() []byte {
	return document(elem("lldp", "", "label", "LLDP neighbors").with(elem("interface", "", "label", "Interface", "name", "ens3", "via", "LLDP").with(
		elem("chassis", "", "label", "Chassis").with(elem("id", "02:00:00:00:00:fe", "label", "ChassisID", "type", "mac"), elem("name", "lab-switch", "label", "SysName")),
		elem("port", "", "label", "Port").with(elem("id", m.cfg.Name, "label", "PortID", "type", "local")))))
}
