package api

// A rack serves from a snapshot: everything needed to answer DHCP, TFTP, HTTP boot files and DNS for its VLANs without asking
// the region. The region numbers every change (Revision); a rack long-polls for what is newer than what it has, keeps the
// result on disk, and goes on with it while the region is away.

// Purpose is what a machine that boots from the network is to do next.
type Purpose string

// The purposes. PowerOff boots the ephemeral environment, whose task is to switch the machine off.
const (
	PurposeEnlist     Purpose = "enlist"
	PurposeCommission Purpose = "commissioning" // also erase, test, rescue: the task says which
	PurposeInstall    Purpose = "xinstall"
	PurposeLocal      Purpose = "local"
	PurposePowerOff   Purpose = "poweroff"
)

// SnapshotVersion is the version of this document. 1: 2026-11-25, the first.
const SnapshotVersion = 1

// Snapshot is one rack's world.
type Snapshot struct {
	Version  int   `json:"version"`
	Revision int64 `json:"revision"`
	// Since is 0 for a whole snapshot. Otherwise Hosts holds only those changed after it and Gone those that ended; all else is whole.
	Since   int64        `json:"since,omitempty"`
	RackID  string       `json:"rack_id"` // system_id of the rack
	Domain  string       `json:"domain"`
	Subnets []SnapSubnet `json:"subnets"`
	Hosts   []SnapHost   `json:"hosts"`
	Gone    []string     `json:"gone,omitempty"` // system_ids
	// Fixed are addresses kept for MAC addresses, whether a host has those or not.
	Fixed []SnapFixed `json:"fixed,omitempty"`
	// Enlist is what an unknown machine boots, by architecture ("amd64").
	Enlist map[string]BootImage `json:"enlist"`
	// Contents are the blobs that hosts may ask for: racks fetch them on demand, or before, and verify them.
	Contents   []Content `json:"contents"`
	KernelOpts string    `json:"kernel_opts,omitempty"` // global; enlistment uses only these
	// Loaders maps the name of a boot loader file ("bootx64.efi") to its blob when the region holds one; racks prefer their own.
	Loaders map[string]Content `json:"loaders,omitempty"`
	// Agents maps an architecture ("amd64") to the ingot-agent binary that racks serve below /machine-resources/.
	Agents map[string]Content `json:"agents,omitempty"`
}

// SnapSubnet is a subnet of a VLAN that the rack serves.
type SnapSubnet struct {
	ID      int64       `json:"id"`
	VLANID  int64       `json:"vlan_id"`
	CIDR    string      `json:"cidr"`
	Gateway string      `json:"gateway,omitempty"`
	DNS     []string    `json:"dns,omitempty"`
	NTP     []string    `json:"ntp,omitempty"` // addresses only: DHCP option 42 carries no names
	MTU     int         `json:"mtu,omitempty"`
	DHCP    bool        `json:"dhcp"`    // answer DHCP on this subnet
	Managed bool        `json:"managed"` // whether addresses outside dynamic ranges are ours to give
	Dynamic []AddrRange `json:"dynamic"` // ranges to lease from
	// Reserved addresses are never leased even inside a dynamic range: reserved ranges, gateways, static addresses.
	Reserved      []AddrRange `json:"reserved"`
	DisabledArchs []string    `json:"disabled_archs,omitempty"` // boot method names
	// RackAddress is the rack's own address for this subnet (next-server and URLs); empty: the listener's.
	RackAddress string `json:"rack_address,omitempty"`
	RelayFrom   int64  `json:"relay_from,omitempty"`
}

// AddrRange is an inclusive range of addresses.
type AddrRange struct {
	Start string `json:"start"`
	End   string `json:"end"`
}

// SnapHost is a machine or device as the rack sees it. It carries no secret.
type SnapHost struct {
	SystemID     string     `json:"system_id"`
	Hostname     string     `json:"hostname"`
	Domain       string     `json:"domain"`
	HardwareUUID string     `json:"hardware_uuid,omitempty"`
	Arch         string     `json:"arch"` // amd64
	MACs         []SnapMAC  `json:"macs"`
	Purpose      Purpose    `json:"purpose"`
	Status       string     `json:"status"`          // status label, for logs and refusals
	Boot         *BootImage `json:"boot,omitempty"`  // nil when Purpose is local
	Error        string     `json:"error,omitempty"` // why Boot could not be chosen; shown on the console
	KernelOpts   string     `json:"kernel_opts,omitempty"`
	Revision     int64      `json:"revision"`
}

// SnapMAC is one boot interface of a host, with the address it must get, by subnet.
type SnapMAC struct {
	MAC    string   `json:"mac"` // lower case, colons
	VLANID int64    `json:"vlan_id,omitempty"`
	Fixed  []string `json:"fixed,omitempty"` // static or auto addresses
}

// SnapFixed is an address that a MAC address must get.
type SnapFixed struct {
	MAC     string `json:"mac"` // lower case, colons
	Address string `json:"address"`
}

// EnvironmentKickstart is Anaconda, the installer of CentOS and its kin, which reads a kickstart.
const EnvironmentKickstart = "kickstart"

// BootImage names what an ephemeral boot loads. Paths are below /images/ on the rack: sha256/os/arch/subarch/series/label/file.
type BootImage struct {
	Environment string `json:"environment"` // light, full, ubuntu (as full, from a mirror) or kickstart
	OSystem     string `json:"osystem"`
	Series      string `json:"series"`
	Kernel      string `json:"kernel"`
	Initrd      string `json:"initrd"`
	Root        string `json:"root,omitempty"` // squashfs of the full environment
	// PreseedPath is the path and query of cloud-config-url, or of an installer's kickstart; the rack puts its own address in front of it.
	PreseedPath string `json:"preseed_path"`
	// Tree is the address of the mirror tree that Kernel and Initrd are the installer of, for the environment EnvironmentKickstart.
	Tree  string `json:"tree,omitempty"`
	Proxy string `json:"proxy,omitempty"` // by which the installer reaches the tree
	// Interfaces are the names that the machine's interfaces are to have in the installer, NAME:MAC.
	Interfaces []string `json:"interfaces,omitempty"`
}

// Content is a blob by its digest.
type Content struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}
