package api

// A task is what ingot-agent does in one ephemeral boot. The agent gets it from the metadata service, at
// {metadata_url}/latest/ingot-task with its machine's credentials (enlistment: {metadata_url}/enlist/latest/ingot-task without),
// does it, signals the outcome in MAAS's own words (op=signal) and ends the boot as Then says.

// TaskStep names what to do.
type TaskStep string

// The steps.
const (
	TaskEnlist     TaskStep = "enlist"     // register this machine, then fetch the task again with the credentials that come back
	TaskCommission TaskStep = "commission" // run the built-in inventory and report it, then the scripts
	TaskTest       TaskStep = "test"       // run the test scripts that the metadata service has
	TaskInstall    TaskStep = "install"    // carry out Install
	TaskErase      TaskStep = "erase"      // carry out Erase
	TaskRescue     TaskStep = "rescue"     // signal OK and stay up
	TaskPowerOff   TaskStep = "poweroff"   // nothing but Then
)

// Task is the document.
type Task struct {
	Step TaskStep `json:"step"`
	// SystemID is empty for TaskEnlist.
	SystemID string `json:"system_id,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	// Then is "poweroff", "reboot" or "stay"; "next": the agent asks for another task in the same boot.
	Then    string       `json:"then"`
	Install *InstallPlan `json:"install,omitempty"`
	Erase   *ErasePlan   `json:"erase,omitempty"`
}

// DiskID names a disk by what does not change between boots. The agent refuses a plan whose disk it does not find exactly once:
// by Serial when there is one, else by Path (/dev/disk/by-id/…, /dev/vda), and Size must match.
type DiskID struct {
	Name   string `json:"name"` // as inventoried: vda
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`
	Path   string `json:"path,omitempty"`
	Size   int64  `json:"size"` // bytes
}

// InstallPlan says how the machine's disk and network are to look. Only disks that it names are written.
type InstallPlan struct {
	Firmware string `json:"firmware"` // bios or uefi
	// Storage is what to make, in order: see StorageItem. For a whole-disk image it has one item, the disk.
	Storage []StorageItem `json:"storage,omitempty"`
	Image   ImageSource   `json:"image"`
	// Memory asks for the system to be unpacked into memory and started there: no disk is written and Storage is empty. Task.Then is for when that
	// fails.
	Memory bool `json:"memory,omitempty"`
	// OSystem and Series are what is installed: ubuntu and noble, centos and centos9, windows and win2022, custom and a name.
	OSystem string `json:"osystem,omitempty"`
	Series  string `json:"series,omitempty"`
	// BaseImage is what a custom image is made of, os/series; empty when unknown.
	BaseImage string `json:"base_image,omitempty"`
	// KernelPackage is installed from the system's own archive when the image brings no kernel (Ubuntu's squashfs); empty: its usual one.
	KernelPackage string `json:"kernel_package,omitempty"`
	// SwapSize is the size of the swap file /swap.img in bytes; nil and 0 make none.
	SwapSize *int64 `json:"swap_size,omitempty"`
	// Proxy is the HTTP proxy for package installation in the new system; empty: none.
	Proxy string `json:"proxy,omitempty"`
	// Network is the operating system's configuration, netplan version 2 in its JSON form, interfaces matched by MAC address.
	Network map[string]any `json:"network,omitempty"`
	// NetworkStyle is netplan, eni, networkd, nm, ifcfg, cloud-init or none: what the image understands; "" lets the agent look.
	NetworkStyle string `json:"network_style,omitempty"`
	// Seed files are written into the installed system: cloud-init's MAAS datasource with the machine's credentials, hostname.
	Seed       []SeedFile `json:"seed"`
	Hostname   string     `json:"hostname"`
	KernelOpts string     `json:"kernel_opts,omitempty"`
}

// ImageSource is the root file system's source: a path below /images/ on the rack that the machine booted from.
type ImageSource struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Type   string `json:"type"` // root-tgz, root-txz, root-tzst, ..., squashfs; root-dd... for a whole disk
}

// SeedFile is a file of the installed system.
type SeedFile struct {
	Path    string `json:"path"` // absolute, clean
	Content string `json:"content"`
	Mode    uint32 `json:"mode"` // 0600
}

// ErasePlan names the disks to erase and how. The agent says what became of each disk in a finish event erase/NAME, whose description tells
// how it was erased in the end, and why otherwise than asked.
type ErasePlan struct {
	// Mode is quick, full, secure (full where a disk offers no secure erase) or secure-or-quick (quick where it offers none).
	Mode  string   `json:"mode"`
	Disks []DiskID `json:"disks"`
}
