package lab

import (
	"encoding/json"
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
