package storage

// The records: one struct a table of migrations/0001_main.sql, one field a column, in the same order. The schema says what
// each column means; here are only the Go types. Times are UTC; a zero time is stored as 0. Addresses are netip.Addr.

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Setting is a row of settings.
type Setting struct {
	Name  string
	Value json.RawMessage // JSON
}

// User is a row of users.
type User struct {
	ID           int64
	Username     string
	Email        string
	LastName     string
	IsSuperuser  bool
	IsActive     bool
	PasswordHash string
	Created      time.Time
	LastLogin    time.Time
}

// APIToken is a row of api_tokens.
type APIToken struct {
	ID          int64
	UserID      int64
	Name        string
	ConsumerKey string
	TokenKey    string
	TokenSecret string
	Created     time.Time
}

// Session is a row of sessions.
type Session struct {
	ID      string // SHA-256 of the cookie, hex
	UserID  int64
	CSRF    string
	Expires time.Time
}

// SSHKey is a row of sshkeys.
type SSHKey struct {
	ID      int64
	UserID  int64
	Key     string
	Source  string
	Created time.Time
}

// IdempotencyKey is a row of idempotency_keys.
type IdempotencyKey struct {
	UserID      int64
	Key         string
	Request     string // method, path and SHA-256 of the body
	Status      int64  // 0 while the first call runs
	ContentType string
	Body        []byte
	Created     time.Time
}

// Zone is a row of zones.
type Zone struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// Pool is a row of pools.
type Pool struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// Domain is a row of domains.
type Domain struct {
	ID            int64
	Name          string
	TTL           *int64
	Authoritative bool
}

// Tag is a row of tags.
type Tag struct {
	ID         int64
	Name       string
	Definition string
	Comment    string
	KernelOpts string
	Created    time.Time
	Updated    time.Time
}

// Space is a row of spaces.
type Space struct {
	ID          int64
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
}

// Fabric is a row of fabrics.
type Fabric struct {
	ID          int64
	Name        string
	Description string
	ClassType   *string
	Created     time.Time
	Updated     time.Time
}

// VLAN is a row of vlans.
type VLAN struct {
	ID              int64 // the first is 5001
	FabricID        int64
	VID             int64
	Name            *string // null: the text of vid
	Description     string
	MTU             int64
	DhcpOn          bool
	ExternalDhcp    *string
	PrimaryRackID   *int64 // nodes.id
	SecondaryRackID *int64
	RelayVLANID     *int64
	SpaceID         *int64
	Created         time.Time
	Updated         time.Time
}

// Subnet is a row of subnets.
type Subnet struct {
	ID                        int64
	VLANID                    int64
	Name                      string
	Description               string
	CIDR                      string
	FirstIP                   netip.Addr
	LastIP                    netip.Addr
	GatewayIP                 *string
	DNSServers                []string
	RDNSMode                  int64
	ActiveDiscovery           bool
	AllowDNS                  bool
	AllowProxy                bool
	Managed                   bool
	DisabledBootArchitectures []string
	Created                   time.Time
	Updated                   time.Time
}

// IPRange is a row of ipranges.
type IPRange struct {
	ID       int64
	SubnetID int64
	Type     string // dynamic, reserved
	StartIP  netip.Addr
	EndIP    netip.Addr
	UserID   *int64
	Comment  string
	Created  time.Time
	Updated  time.Time
}

// Node is a machine, a device or a controller, by NodeType.
type Node struct {
	ID               int64
	SystemID         string
	NodeType         int64
	Hostname         string
	Description      string
	DomainID         int64
	ZoneID           int64
	PoolID           *int64 // machines only
	Status           NodeStatus
	PreviousStatus   NodeStatus
	StatusExpires    time.Time // the deadline of a transitional status
	StatusChanged    time.Time
	OwnerID          *int64
	AgentName        string
	Locked           bool
	Architecture     string // amd64/generic
	MinHWEKernel     string
	HWEKernel        string
	Osystem          string
	DistroSeries     string
	CPUCount         int64
	CPUSpeed         int64 // MHz
	Memory           int64 // MiB
	SwapSize         *int64
	NUMA             json.RawMessage // JSON: [{index, cores, memory, hugepages_set}]
	PowerType        string
	PowerParameters  json.RawMessage // JSON; holds secrets
	PowerState       string
	PowerChecked     time.Time
	Netboot          bool
	HardwareUUID     *string
	BIOSBootMethod   *string
	BootInterfaceID  *int64
	BootDiskID       *int64
	BootRackIP       string // the rack address the machine last booted from
	Environment      string // light or full: the ephemeral environment of the current step
	EphemeralDeploy  bool
	EnableHWSync     bool
	Enlisting        bool   // commissioning that ends in New
	CommissionFlags  string // of the current commissioning: enable_ssh, skip_networking, skip_storage; comma separated
	Erase            string // quick, secure or full: what the disks owe before Ready
	Error            string
	ErrorDescription string
	ParentID         *int64
	UserData         []byte
	LastPing         time.Time
	Version          string
	LastSeen         time.Time
	CertFingerprint  string
	RackURL          string
	Revision         int64 // the revision of the last change that racks must see
	Created          time.Time
	Updated          time.Time
}

// NodeToken is a row of node_tokens.
type NodeToken struct {
	NodeID      int64
	ConsumerKey string
	TokenKey    string
	TokenSecret string
	Created     time.Time
}

// Interface is a row of interfaces.
type Interface struct {
	ID              int64
	NodeID          int64
	Name            string
	Type            string
	MACAddress      string // lower case, colons
	VLANID          *int64
	Enabled         bool
	Params          json.RawMessage
	Tags            []string
	Vendor          *string
	Product         *string
	FirmwareVersion *string
	LinkConnected   bool
	InterfaceSpeed  int64
	LinkSpeed       int64
	NUMANode        *int64
	SRIOVMaxVF      int64
	Created         time.Time
	Updated         time.Time
}

// IPAddress is a row of ip_addresses.
type IPAddress struct {
	ID          int64
	InterfaceID *int64
	SubnetID    *int64
	IP          netip.Addr // null: none yet (auto, dhcp) or link_up
	AllocType   int64
	UserID      *int64
	// DefaultGateway: the node's default route of this family goes through this link.
	DefaultGateway bool
	Created        time.Time
	Updated        time.Time
}

// Lease is a row of dhcp_leases.
type Lease struct {
	IP       netip.Addr
	MAC      string
	SubnetID int64
	Hostname string
	Expires  time.Time
	Given    time.Time // by the rack's clock: what was given later wins
	Updated  time.Time
}

// BlockDevice is a row of block_devices.
type BlockDevice struct {
	ID              int64
	NodeID          int64
	Name            string
	Type            string // physical, virtual
	Model           *string
	Serial          *string
	IDPath          *string
	UUID            *string
	Size            int64
	BlockSize       int64
	Tags            []string
	FirmwareVersion *string
	NUMANode        *int64
	PartitionTable  string // '', GPT, MBR
	Created         time.Time
	Updated         time.Time
}

// Partition is a row of partitions.
type Partition struct {
	ID            int64
	BlockDeviceID int64
	Number        int64
	UUID          string
	Size          int64
	Bootable      bool
	Flag          string // bios_grub, boot (ESP), prep
	Tags          []string
	Created       time.Time
	Updated       time.Time
}

// Filesystem is a row of filesystems.
type Filesystem struct {
	ID            int64
	NodeID        int64
	BlockDeviceID *int64
	PartitionID   *int64
	Fstype        string
	Label         *string
	UUID          *string
	MountPoint    *string
	MountOptions  *string
}

// Script is a row of scripts.
type Script struct {
	ID        int64
	Name      string
	Type      string // commissioning, testing, release, deployment
	IsDefault bool
	Content   []byte
	Meta      json.RawMessage
	Created   time.Time
	Updated   time.Time
}

// ScriptSet is a row of script_sets.
type ScriptSet struct {
	ID      int64
	NodeID  int64
	Type    int64 // 0 commissioning, 1 installation, 2 testing, 3 release
	Created time.Time
}

// ScriptResult is a row of script_results.
type ScriptResult struct {
	ID         int64
	SetID      int64
	Name       string
	Status     int64 // 0 pending 1 running 2 passed 3 failed 4 timed out 5 aborted
	ExitStatus *int64
	Output     []byte
	Stdout     []byte
	Stderr     []byte
	Result     []byte
	Started    time.Time
	Ended      time.Time
	Updated    time.Time
}

// Event is a row of events.
type Event struct {
	ID           int64
	NodeID       *int64
	NodeHostname string
	SystemID     string
	Type         string // the constant: DEPLOYED
	Level        int64
	Description  string
	Action       string
	Username     string
	UserAgent    string
	Endpoint     string
	Created      time.Time
}

// BootResource is a row of boot_resources.
type BootResource struct {
	ID           int64
	Rtype        int64  // 0 synced, 2 uploaded
	Name         string // os/series; a custom image: custom/name
	Architecture string // amd64/generic
	Extra        json.RawMessage
	Created      time.Time
	Updated      time.Time
}

// BootResourceSet is a row of boot_resource_sets.
type BootResourceSet struct {
	ID         int64
	ResourceID int64
	Version    string
	Label      string
	Created    time.Time
}

// BootResourceFile is a row of boot_resource_files.
type BootResourceFile struct {
	ID       int64
	SetID    int64
	Filename string
	Filetype string // boot-kernel, boot-initrd, squashfs, root-tgz, ...
	SHA256   string
	Size     int64
	Uploaded int64 // bytes received; complete when equal to size and verified
	Complete bool
	Extra    json.RawMessage
	Created  time.Time
}

// Job is a piece of durable work; see package jobs for its life.
type Job struct {
	ID          int64
	Kind        string
	Queue       string
	UniqueKey   *string         // at most one unfinished job has it
	Args        json.RawMessage // JSON without secrets
	State       string          // ready, running, done, failed, cancelled
	RunAt       time.Time
	Attempt     int64 // the fencing number
	MaxAttempts int64
	Worker      string
	LeaseUntil  time.Time
	Result      json.RawMessage
	Error       string
	NodeID      *int64
	Created     time.Time
	Finished    time.Time
}

// RackVLAN is a row of rack_vlans.
type RackVLAN struct {
	RackID    int64
	VLANID    int64
	Interface string
	Address   string
}

// Boot is a row of boots.
type Boot struct {
	ID      int64
	NodeID  *int64
	MAC     string
	Rack    string
	Purpose string
	Steps   json.RawMessage
	Verdict string // '' while it runs
	Started time.Time
	Updated time.Time
}
