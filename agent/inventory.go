package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The inventory has the shape of MAAS's machine-resources. Field names are its wire format.
type (
	obj  = map[string]any
	list = []any
)

var apiExtensions = []string{"resources", "resources_v2", "api_os", "resources_system", "resources_usb_pci", "resources_cpu_socket",
	"resources_numa", "resources_disk_sata", "resources_network_firmware", "resources_disk_id", "resources_cpu_threads_numa",
	"resources_cpu_core_die", "resources_disk_address"}

// Inventory takes stock of the machine whose root is at root ("/").
func Inventory(root string) (map[string]any, error) {
	s := system{root}
	disks, err := s.Disks()
	if err != nil {
		return nil, err
	}
	return obj{
		"api_version":    "1.0",
		"api_extensions": apiExtensions,
		"environment":    s.environment(),
		"resources": obj{
			"cpu":     s.cpu(),
			"memory":  s.memory(),
			"gpu":     obj{"cards": list{}, "total": 0},
			"network": s.cards(),
			"storage": s.storage(disks),
			"usb":     s.usb(),
			"pci":     s.pci(),
			"system":  s.system(),
		},
		"networks": s.networks(),
	}, nil
}

func (s system) environment() obj {
	var u unix.Utsname
	_ = unix.Uname(&u)
	name, version := "", ""
	for _, l := range strings.Split(s.read("etc/os-release"), "\n") {
		k, v, _ := strings.Cut(l, "=")
		switch v = strings.ToLower(strings.Trim(v, `"'`)); k {
		case "ID":
			name = v
		case "VERSION_ID":
			version = v
		}
	}
	return obj{
		"kernel": unix.ByteSliceToString(u.Sysname[:]), "kernel_architecture": unix.ByteSliceToString(u.Machine[:]),
		"kernel_version": unix.ByteSliceToString(u.Release[:]), "os_name": name, "os_version": version,
		"server": "maas-machine-resources", "server_name": unix.ByteSliceToString(u.Nodename[:]), "server_version": "ingot-agent",
		"firmware": Firmware(s.root), "virtual": s.virtual(),
	}
}

// Firmware is "uefi" or "bios": what booted this system.
func Firmware(root string) string {
	if (system{root}).exists("sys/firmware/efi") {
		return "uefi"
	}
	return "bios"
}

// DebianArch is the architecture's name in MAAS and Debian.
func DebianArch() string {
	switch runtime.GOARCH {
	case "386":
		return "i386"
	case "ppc64le":
		return "ppc64el"
	case "arm":
		return "armhf"
	}
	return runtime.GOARCH
}

var onlineList = regexp.MustCompile(`^[0-9,-]+$`)

// parseList reads the kernel's list form: 0-3,8.
func parseList(v string) []int {
	var out []int
	if !onlineList.MatchString(v) {
		return nil
	}
	for _, p := range strings.Split(v, ",") {
		a, b, ranged := strings.Cut(p, "-")
		lo, err := strconv.Atoi(a)
		hi := lo
		if ranged && err == nil {
			hi, err = strconv.Atoi(b)
		}
		if err != nil || hi-lo > 1<<16 {
			continue
		}
		for i := lo; i <= hi; i++ {
			out = append(out, i)
		}
	}
	return out
}

func (s system) cpu() obj {
	base := "sys/devices/system/cpu"
	models, vendors, mhz := map[int]string{}, map[int]string{}, map[int]float64{}
	cur := -1
	for _, l := range strings.Split(s.read("proc/cpuinfo"), "\n") {
		k, v, ok := strings.Cut(l, ":")
		if !ok {
			continue
		}
		v = strings.TrimSpace(v)
		switch strings.TrimSpace(k) {
		case "processor":
			cur, _ = strconv.Atoi(v)
		case "model name":
			models[cur] = v
		case "vendor_id":
			vendors[cur] = v
		case "cpu MHz":
			mhz[cur], _ = strconv.ParseFloat(v, 64)
		}
	}
	numa := map[int]int{}
	for _, n := range s.list("sys/devices/system/node") {
		id, err := strconv.Atoi(strings.TrimPrefix(n, "node"))
		if err != nil {
			continue
		}
		for _, c := range parseList(s.read("sys/devices/system/node", n, "cpulist")) {
			numa[c] = id
		}
	}
	type key struct{ socket, core int }
	cores := map[key]list{}
	sockets := map[int]int{} // socket → a thread of it
	total := 0
	for _, c := range parseList(firstOf(s.read(base, "present"), s.read(base, "online"))) {
		dir := fmt.Sprintf("cpu%d", c)
		socket := int(max(0, s.readInt(base, dir, "topology/physical_package_id")))
		core := int(s.readInt(base, dir, "topology/core_id"))
		online := s.read(base, dir, "online") != "0"
		k := key{socket, core}
		cores[k] = append(cores[k], obj{"id": c, "thread": len(cores[k]), "online": online, "isolated": false, "numa_node": numa[c]})
		if _, ok := sockets[socket]; !ok {
			sockets[socket] = c
		}
		total++
	}
	var out list
	ids := make([]int, 0, len(sockets))
	for id := range sockets {
		ids = append(ids, id)
	}
	sort.Ints(ids)
	for _, id := range ids {
		first := sockets[id]
		freq := fmt.Sprintf("cpu%d/cpufreq", first)
		cur := uint64(s.readInt(base, freq, "scaling_cur_freq") / 1000)
		if cur == 0 {
			cur = uint64(mhz[first])
		}
		sock := obj{"socket": id, "name": models[first], "vendor": vendors[first], "frequency": cur, "cache": list{},
			"frequency_minimum": s.readInt(base, freq, "cpuinfo_min_freq") / 1000, "frequency_turbo": s.readInt(base, freq, "cpuinfo_max_freq") / 1000}
		var cs list
		var nums []int
		for k := range cores {
			if k.socket == id {
				nums = append(nums, k.core)
			}
		}
		sort.Ints(nums)
		for _, n := range nums {
			cs = append(cs, obj{"core": n, "die": 0, "frequency": cur, "threads": cores[key{id, n}]})
		}
		sock["cores"] = cs
		out = append(out, sock)
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	return obj{"architecture": unix.ByteSliceToString(u.Machine[:]), "total": total, "sockets": out}
}

func meminfo(text, key string) int64 {
	for _, l := range strings.Split(text, "\n") {
		// a node's own file has "Node 0 MemTotal: 1 kB"
		if i := strings.Index(l, key+":"); i >= 0 && (i == 0 || l[i-1] == ' ') {
			f := strings.Fields(l[i+len(key)+1:])
			if len(f) == 0 {
				return 0
			}
			n, _ := strconv.ParseInt(f[0], 10, 64)
			if len(f) > 1 && f[1] == "kB" {
				n *= 1024
			}
			return n
		}
	}
	return 0
}

// memory reports what is installed: the kernel's memory blocks where it has them (MemTotal lacks what the kernel took for itself).
func (s system) memory() obj {
	mi := s.read("proc/meminfo")
	total := int64(0)
	if block, err := strconv.ParseInt(s.read("sys/devices/system/memory/block_size_bytes"), 16, 64); err == nil && block > 0 {
		for _, n := range s.list("sys/devices/system/memory") {
			if strings.HasPrefix(n, "memory") && s.read("sys/devices/system/memory", n, "online") == "1" {
				total += block
			}
		}
	}
	if total == 0 {
		total = meminfo(mi, "MemTotal")
	}
	var nodes list
	for _, n := range s.list("sys/devices/system/node") {
		id, err := strconv.Atoi(strings.TrimPrefix(n, "node"))
		if err != nil || !strings.HasPrefix(n, "node") {
			continue
		}
		ni := s.read("sys/devices/system/node", n, "meminfo")
		nodes = append(nodes, obj{"numa_node": id, "total": meminfo(ni, "MemTotal"), "used": meminfo(ni, "MemUsed"),
			"hugepages_total": meminfo(ni, "HugePages_Total") * meminfo(mi, "Hugepagesize"), "hugepages_used": 0})
	}
	if len(nodes) == 1 {
		nodes[0].(obj)["total"] = total
	}
	return obj{"total": total, "used": meminfo(mi, "MemTotal") - meminfo(mi, "MemAvailable"), "hugepages_total": 0, "hugepages_used": 0,
		"hugepages_size": meminfo(mi, "Hugepagesize"), "nodes": nodes}
}

func (s system) storage(disks []Disk) obj {
	var out list
	for _, d := range disks {
		o := obj{"id": d.Name, "device": s.read("sys/block", d.Name, "dev"), "model": d.Model, "type": d.Type, "read_only": d.ReadOnly,
			"removable": d.Removable, "size": d.Size, "block_size": d.BlockSize, "rpm": d.RPM, "serial": d.Serial, "device_id": d.ByID,
			"device_path": d.DevPath, "firmware_version": d.Firmware, "numa_node": d.NUMANode, "mounted": d.Busy != "", "partitions": list{}}
		if d.PCI != "" {
			o["pci_address"] = d.PCI
		}
		out = append(out, o)
	}
	return obj{"disks": out, "total": len(out)}
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// lastPCI is the PCI function nearest to a device in its sysfs path.
func lastPCI(path string) string {
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if pciAddress.MatchString(parts[i]) {
			return parts[i]
		}
	}
	return ""
}

func hexID(v string) string { return strings.TrimPrefix(v, "0x") }

func (s system) driver(dir ...string) string {
	t, err := os.Readlink(s.path(append(dir, "driver")...))
	if err != nil {
		return ""
	}
	return filepath.Base(t)
}

func (s system) pci() obj {
	var out list
	for _, n := range s.list("sys/bus/pci/devices") {
		d := "sys/bus/pci/devices/" + n
		out = append(out, obj{"driver": s.driver(d), "driver_version": "", "numa_node": max(0, s.readInt(d, "numa_node")), "pci_address": n,
			"vendor_id": hexID(s.read(d, "vendor")), "product_id": hexID(s.read(d, "device")), "vendor": "", "product": "",
			"iommu_group": 0, "vpd": obj{"entries": obj{}}})
	}
	return obj{"devices": out, "total": len(out)}
}

func (s system) usb() obj {
	out := list{}
	for _, n := range s.list("sys/bus/usb/devices") {
		d := "sys/bus/usb/devices/" + n
		if strings.Contains(n, ":") || s.read(d, "bDeviceClass") == "09" { // interfaces; hubs
			continue
		}
		var ifs list
		for _, i := range s.list(d) {
			if strings.HasPrefix(i, n+":") {
				ifs = append(ifs, obj{"class": s.read(d, i, "bInterfaceClass"), "driver": s.driver(d, i), "number": s.readInt(d, i, "bInterfaceNumber")})
			}
		}
		out = append(out, obj{"bus_address": s.readInt(d, "busnum"), "device_address": s.readInt(d, "devnum"), "vendor_id": s.read(d, "idVendor"),
			"product_id": s.read(d, "idProduct"), "vendor": s.read(d, "manufacturer"), "product": s.read(d, "product"), "interfaces": ifs})
	}
	return obj{"devices": out, "total": len(out)}
}

func (s system) dmi(k string) string { return s.read("sys/class/dmi/id", k) }

func (s system) system() obj {
	kind := "physical"
	if v := s.virtual(); v != "" {
		kind = "virtual-machine"
	}
	return obj{
		"uuid": strings.ToLower(s.dmi("product_uuid")), "vendor": s.dmi("sys_vendor"), "product": s.dmi("product_name"), "family": s.dmi("product_family"),
		"version": s.dmi("product_version"), "sku": s.dmi("product_sku"), "serial": s.dmi("product_serial"), "type": kind,
		"firmware":    obj{"vendor": s.dmi("bios_vendor"), "date": s.dmi("bios_date"), "version": s.dmi("bios_version")},
		"chassis":     obj{"vendor": s.dmi("chassis_vendor"), "type": s.dmi("chassis_type"), "serial": s.dmi("chassis_serial"), "version": s.dmi("chassis_version")},
		"motherboard": obj{"vendor": s.dmi("board_vendor"), "product": s.dmi("board_name"), "serial": s.dmi("board_serial"), "version": s.dmi("board_version")},
	}
}

// virtual names the hypervisor, "" on real hardware. The CPU's own flag decides; firmware strings name it.
func (s system) virtual() string {
	text := strings.ToLower(s.dmi("sys_vendor") + " " + s.dmi("product_name") + " " + s.dmi("board_vendor") + " " + s.dmi("bios_vendor"))
	for _, h := range []struct{ sign, name string }{{"qemu", "qemu"}, {"seabios", "qemu"}, {"edk ii", "qemu"}, {"kvm", "kvm"}, {"vmware", "vmware"}, {"virtualbox", "virtualbox"},
		{"innotek", "virtualbox"}, {"xen", "xen"}, {"microsoft corporation virtual", "hyperv"}, {"bochs", "bochs"}, {"parallels", "parallels"}, {"google compute", "google"},
		{"amazon ec2", "amazon"}, {"openstack", "openstack"}} {
		if strings.Contains(text, h.sign) {
			return h.name
		}
	}
	for _, l := range strings.Split(s.read("proc/cpuinfo"), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "flags" {
			if strings.Contains(" "+v+" ", " hypervisor ") {
				return "unknown"
			}
			break
		}
	}
	return ""
}
