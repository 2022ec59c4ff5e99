-- +goose Up
-- The schema of the first release. One text for SQLite and PostgreSQL: the tokens in double braces are replaced by the
-- dialect (see storage/dialect.go): {{pk}} an auto-numbered bigint primary key, {{bytes}} a byte string, {{real}} a double.
-- Times are integer microseconds since 1970 UTC; 0 or null means never. Addresses are 17 sortable bytes: family (4 or 6), then 16 bytes.
-- Booleans are integers 0 and 1. JSON is text.

create table settings (
    name  text primary key,
    value text not null -- JSON
);

-- One row: the number of the last committed change that racks and watchers care about.
create table revision (
    id    bigint primary key,
    value bigint not null
);
insert into revision (id, value) values (1, 0);

create table users (
    id            {{pk}},
    username      text not null unique,
    email         text not null default '',
    last_name     text not null default '',
    is_superuser  bigint not null default 0,
    is_active     bigint not null default 1,
    password_hash text not null default '',
    created       bigint not null,
    last_login    bigint not null default 0,
    access_version bigint not null default 0 -- grows whenever the user's groups change, or what one of them may do
);

create table api_tokens (
    id           {{pk}},
    user_id      bigint not null references users (id) on delete cascade,
    name         text not null default 'MAAS consumer',
    consumer_key text not null unique,
    token_key    text not null unique,
    token_secret text not null,
    created      bigint not null
);
create index api_tokens_user on api_tokens (user_id);

create table nonces (
    token_key text not null,
    nonce     text not null,
    seen      bigint not null,
    primary key (token_key, nonce)
);
create index nonces_seen on nonces (seen);

create table sessions (
    id      text primary key, -- SHA-256 of the cookie, hex
    user_id bigint not null references users (id) on delete cascade,
    csrf    text not null,
    expires bigint not null
);

create table sshkeys (
    id      {{pk}},
    user_id bigint not null references users (id) on delete cascade,
    key     text not null,
    source  text not null default '',
    created bigint not null,
    unique (user_id, key)
);

create table idempotency_keys (
    user_id      bigint not null,
    key          text not null,
    request      text not null, -- method, path and SHA-256 of the body
    status       bigint not null default 0, -- 0 while the first call runs
    content_type text not null default '',
    body         {{bytes}},
    created      bigint not null,
    primary key (user_id, key)
);

create table zones (
    id          {{pk}},
    name        text not null unique,
    description text not null default '',
    created     bigint not null,
    updated     bigint not null
);

create table pools (
    id          {{pk}},
    name        text not null unique,
    description text not null default '',
    created     bigint not null,
    updated     bigint not null
);

create table domains (
    id            {{pk}},
    name          text not null unique,
    ttl           bigint,
    authoritative bigint not null default 1,
    is_default    bigint not null default 0,
    forward_dns_servers text not null default '[]' -- address[:port]; only of domains that are not authoritative
);
create unique index domains_default on domains (is_default) where is_default = 1;

create table tags (
    id          {{pk}},
    name        text not null unique,
    definition  text not null default '',
    comment     text not null default '',
    kernel_opts text not null default '',
    created     bigint not null,
    updated     bigint not null
);

create table spaces (
    id          {{pk}},
    name        text not null unique,
    description text not null default '',
    created     bigint not null,
    updated     bigint not null
);

create table fabrics (
    id          {{pk}},
    name        text not null unique,
    description text not null default '',
    class_type  text,
    created     bigint not null,
    updated     bigint not null
);

create table vlans (
    id                {{pk}}, -- the first is 5001
    fabric_id         bigint not null references fabrics (id) on delete cascade,
    vid               bigint not null,
    name              text, -- null: the text of vid
    description       text not null default '',
    mtu               bigint not null default 1500,
    dhcp_on           bigint not null default 0,
    external_dhcp     text,
    primary_rack_id   bigint, -- nodes.id
    secondary_rack_id bigint,
    relay_vlan_id     bigint references vlans (id) on delete set null,
    space_id          bigint references spaces (id) on delete set null,
    created           bigint not null,
    updated           bigint not null,
    unique (fabric_id, vid)
);

create table subnets (
    id                 {{pk}},
    vlan_id            bigint not null references vlans (id),
    name               text not null,
    description        text not null default '',
    cidr               text not null unique,
    first_ip           {{bytes}} not null,
    last_ip            {{bytes}} not null,
    gateway_ip         text,
    dns_servers        text not null default '[]',
    rdns_mode          bigint not null default 2,
    active_discovery   bigint not null default 0,
    allow_dns          bigint not null default 1,
    allow_proxy        bigint not null default 1,
    managed            bigint not null default 1,
    disabled_boot_architectures text not null default '[]',
    created            bigint not null,
    updated            bigint not null
);
create index subnets_vlan on subnets (vlan_id);

create table ipranges (
    id        {{pk}},
    subnet_id bigint not null references subnets (id) on delete cascade,
    type      text not null, -- dynamic, reserved
    start_ip  {{bytes}} not null,
    end_ip    {{bytes}} not null,
    user_id   bigint references users (id) on delete cascade,
    comment   text not null default '',
    created   bigint not null,
    updated   bigint not null
);
create index ipranges_subnet on ipranges (subnet_id);

-- Machines, devices and controllers. node_type: 0 machine, 1 device, 2 rack, 3 region, 4 region and rack.
create table nodes (
    id                {{pk}},
    system_id         text not null unique,
    node_type         bigint not null default 0,
    hostname          text not null unique,
    description       text not null default '',
    domain_id         bigint not null references domains (id),
    zone_id           bigint not null references zones (id),
    pool_id           bigint references pools (id), -- machines only
    status            bigint not null default 0,
    previous_status   bigint not null default 0,
    status_expires    bigint not null default 0, -- the deadline of a transitional status
    status_changed    bigint not null default 0,
    owner_id          bigint references users (id),
    agent_name        text not null default '',
    locked            bigint not null default 0,
    architecture      text not null default '', -- amd64/generic
    min_hwe_kernel    text not null default '',
    hwe_kernel        text not null default '',
    osystem           text not null default '',
    distro_series     text not null default '',
    cpu_count         bigint not null default 0,
    cpu_speed         bigint not null default 0, -- MHz
    memory            bigint not null default 0, -- MiB
    swap_size         bigint,
    numa              text not null default '[]', -- JSON: [{index, cores, memory, hugepages_set}]
    power_type        text not null default '',
    power_parameters  text not null default '{}', -- JSON; holds secrets
    power_state       text not null default 'unknown',
    power_checked     bigint not null default 0,
    netboot           bigint not null default 1,
    hardware_uuid     text,
    bios_boot_method  text,
    boot_interface_id bigint,
    boot_disk_id      bigint,
    boot_rack_ip      text not null default '', -- the rack address the machine last booted from
    environment       text not null default '', -- light or full: the ephemeral environment of the current step
    ephemeral_deploy  bigint not null default 0,
    enable_hw_sync    bigint not null default 0,
    enlisting         bigint not null default 0, -- commissioning that ends in New
    commission_flags  text not null default '', -- of the current commissioning: enable_ssh, skip_networking, skip_storage; comma separated
    erase             text not null default '', -- quick, secure or full: what the disks owe before Ready
    error             text not null default '',
    error_description text not null default '',
    parent_id         bigint,
    user_data         {{bytes}},
    last_ping         bigint not null default 0,
    -- controllers
    version           text not null default '',
    last_seen         bigint not null default 0,
    cert_fingerprint  text not null default '',
    rack_url          text not null default '',
    revision          bigint not null default 0, -- the revision of the last change that racks must see
    created           bigint not null,
    updated           bigint not null
);
-- By status; among the Ready machines, allocate looks at the cheapest first. The cost is MAAS's, cpu_count + memory/1024, times 1024.
create index nodes_status on nodes (status, node_type, (cpu_count * 1024 + memory), id);
create index nodes_controllers on nodes (id) where node_type <> 0;
create index nodes_owner on nodes (owner_id);
create index nodes_parent on nodes (parent_id) where parent_id is not null;
create index nodes_revision on nodes (revision);
create index nodes_expires on nodes (status_expires) where status_expires > 0;

-- Nodes that racks must forget: one row per deleted node.
create table node_tombstones (
    system_id text primary key,
    revision  bigint not null
);
create index node_tombstones_revision on node_tombstones (revision);

-- The machine's own OAuth credentials; deleted whenever its owner changes.
create table node_tokens (
    node_id      bigint primary key references nodes (id) on delete cascade,
    consumer_key text not null,
    token_key    text not null unique,
    token_secret text not null,
    created      bigint not null
);

create table node_tags (
    node_id bigint not null references nodes (id) on delete cascade,
    tag_id  bigint not null references tags (id) on delete cascade,
    primary key (node_id, tag_id)
);
create index node_tags_tag on node_tags (tag_id);

-- Facts of the hardware: system_vendor, cpu_model, ...
create table node_metadata (
    node_id bigint not null references nodes (id) on delete cascade,
    key     text not null,
    value   text not null,
    primary key (node_id, key)
);

create table owner_data (
    node_id bigint not null references nodes (id) on delete cascade,
    key     text not null,
    value   text not null,
    primary key (node_id, key)
);

create table interfaces (
    id               {{pk}},
    node_id          bigint not null references nodes (id) on delete cascade,
    name             text not null,
    type             text not null default 'physical',
    mac_address      text not null, -- lower case, colons
    vlan_id          bigint references vlans (id) on delete set null,
    enabled          bigint not null default 1,
    params           text not null default '{}',
    tags             text not null default '[]',
    vendor           text,
    product          text,
    firmware_version text,
    link_connected   bigint not null default 1,
    interface_speed  bigint not null default 0,
    link_speed       bigint not null default 0,
    numa_node        bigint,
    sriov_max_vf     bigint not null default 0,
    acquired         bigint not null default 0, -- a bridge that lives until the machine is released
    created          bigint not null,
    updated          bigint not null,
    mac_typed        text not null default '', -- mac_address as somebody wrote it
    unique (node_id, name)
);
create unique index interfaces_mac on interfaces (mac_address) where type = 'physical';
create index interfaces_vlan on interfaces (vlan_id);

create table interface_parents (
    child_id  bigint not null references interfaces (id) on delete cascade,
    parent_id bigint not null references interfaces (id) on delete cascade,
    primary key (child_id, parent_id)
);
create index interface_parents_parent on interface_parents (parent_id);

-- Links and addresses. alloc_type: 0 auto, 1 sticky (static), 4 user reserved, 5 dhcp, 6 discovered. mode link_up is sticky without ip.
create table ip_addresses (
    id           {{pk}},
    interface_id bigint references interfaces (id) on delete cascade,
    subnet_id    bigint references subnets (id) on delete cascade,
    ip           {{bytes}}, -- null: none yet (auto, dhcp) or link_up
    alloc_type   bigint not null,
    user_id      bigint references users (id) on delete set null,
    default_gateway bigint not null default 0, -- the node's default route of this family goes through this link
    mac          text not null default '', -- whom a user reserved it for, when that is no node's interface
    created      bigint not null,
    updated      bigint not null
);
create unique index ip_addresses_ip on ip_addresses (ip) where ip is not null and alloc_type <> 6;
create index ip_addresses_interface on ip_addresses (interface_id);
create index ip_addresses_subnet on ip_addresses (subnet_id);

create table dhcp_leases (
    ip        {{bytes}} primary key,
    mac       text not null,
    subnet_id bigint not null,
    hostname  text not null default '',
    expires   bigint not null,
    given     bigint not null default 0, -- when the rack gave or renewed it, by the rack's clock
    updated   bigint not null
);
create index dhcp_leases_mac on dhcp_leases (mac);

create table block_devices (
    id               {{pk}},
    node_id          bigint not null references nodes (id) on delete cascade,
    name             text not null,
    type             text not null default 'physical', -- physical, virtual
    model            text,
    serial           text,
    id_path          text,
    uuid             text,
    size             bigint not null,
    block_size       bigint not null default 512,
    tags             text not null default '[]',
    firmware_version text,
    numa_node        bigint,
    partition_table  text not null default '', -- '', GPT, MBR
    created          bigint not null,
    updated          bigint not null,
    unique (node_id, name)
);

create table partitions (
    id              {{pk}},
    block_device_id bigint not null references block_devices (id) on delete cascade,
    number          bigint not null,
    uuid            text not null,
    size            bigint not null,
    bootable        bigint not null default 0,
    flag            text not null default '', -- bios_grub, boot (ESP), prep
    tags            text not null default '[]',
    created         bigint not null,
    updated         bigint not null,
    unique (block_device_id, number)
);

create table filesystems (
    id              {{pk}},
    node_id         bigint not null references nodes (id) on delete cascade,
    block_device_id bigint references block_devices (id) on delete cascade,
    partition_id    bigint references partitions (id) on delete cascade,
    fstype          text not null,
    label           text,
    uuid            text,
    mount_point     text,
    mount_options   text
);
create index filesystems_node on filesystems (node_id);

-- Everything of a script but its text, which is in script_versions. The JSON fields have the shape that the API shows.
create table scripts (
    id                          {{pk}},
    name                        text not null unique,
    title                       text not null default '',
    description                 text not null default '',
    tags                        text not null default '[]',
    type                        bigint not null, -- 0 commissioning, 2 testing, 3 release, 4 deployment
    hardware_type               bigint not null default 0, -- 0 node, 1 cpu, 2 memory, 3 storage, 4 network, 5 gpu
    parallel                    bigint not null default 0, -- 0 disabled, 1 instance, 2 any
    timeout                     bigint not null default 0, -- seconds; 0: none
    results                     text not null default '{}',
    parameters                  text not null default '{}',
    packages                    text not null default '{}',
    for_hardware                text not null default '[]',
    destructive                 bigint not null default 0,
    may_reboot                  bigint not null default 0,
    recommission                bigint not null default 0,
    apply_configured_networking bigint not null default 0,
    is_default                  bigint not null default 0,
    created                     bigint not null,
    updated                     bigint not null
);

-- The texts that a script has had. The highest id is the current one.
create table script_versions (
    id        {{pk}},
    script_id bigint not null references scripts (id) on delete cascade,
    content   {{bytes}} not null,
    comment   text,
    created   bigint not null
);
create index script_versions_script on script_versions (script_id, id);

create table script_sets (
    id        {{pk}},
    node_id   bigint not null references nodes (id) on delete cascade,
    type      bigint not null, -- 0 commissioning, 1 installation, 2 testing, 3 release, 4 deployment
    requested text not null default '[]', -- the names and tags that were asked for
    last_ping bigint not null default 0,
    created   bigint not null
);
create index script_sets_node on script_sets (node_id, type, id);

-- What scripts report. A script with a device parameter has one result for each device, told apart by instance.
create table script_results (
    id          {{pk}},
    set_id      bigint not null references script_sets (id) on delete cascade,
    name        text not null,
    instance    text not null default '',
    script_id   bigint references scripts (id) on delete set null,
    version_id  bigint references script_versions (id) on delete set null,
    parameters  text not null default '{}',
    status      bigint not null, -- see storage/scripts.go
    exit_status bigint,
    suppressed  bigint not null default 0,
    output      {{bytes}},
    stdout      {{bytes}},
    stderr      {{bytes}},
    result      {{bytes}},
    started     bigint not null default 0,
    ended       bigint not null default 0,
    created     bigint not null default 0,
    updated     bigint not null,
    unique (set_id, name, instance)
);
create index script_results_script on script_results (script_id);

create table events (
    id            {{pk}},
    node_id       bigint references nodes (id) on delete set null,
    node_hostname text not null default '',
    system_id     text not null default '',
    type          text not null, -- the constant: DEPLOYED
    level         bigint not null,
    description   text not null default '',
    action        text not null default '',
    username      text not null default '',
    user_agent    text not null default '',
    endpoint      text not null default '',
    created       bigint not null
);
create index events_node on events (node_id, id);

create table boot_resources (
    id           {{pk}},
    rtype        bigint not null, -- 0 synced, 2 uploaded
    name         text not null, -- os/series; a custom image: custom/name
    architecture text not null, -- amd64/generic
    extra        text not null default '{}',
    created      bigint not null,
    updated      bigint not null,
    unique (name, architecture)
);

create table boot_resource_sets (
    id          {{pk}},
    resource_id bigint not null references boot_resources (id) on delete cascade,
    version     text not null,
    label       text not null,
    created     bigint not null,
    unique (resource_id, version)
);

create table boot_resource_files (
    id       {{pk}},
    set_id   bigint not null references boot_resource_sets (id) on delete cascade,
    filename text not null,
    filetype text not null, -- boot-kernel, boot-initrd, squashfs, root-tgz, ...
    sha256   text not null,
    size     bigint not null,
    uploaded bigint not null default 0, -- bytes received; complete when equal to size and verified
    complete bigint not null default 0,
    extra    text not null default '{}',
    created  bigint not null,
    unique (set_id, filename)
);
create index boot_resource_files_sha on boot_resource_files (sha256);

-- Durable work. queue: region, rack (any rack), vlan:<id> (racks that serve that VLAN).
create table jobs (
    id           {{pk}},
    kind         text not null,
    queue        text not null,
    unique_key   text, -- at most one unfinished job has it
    args         text not null default '{}', -- JSON without secrets
    state        text not null default 'ready', -- ready, running, done, failed, cancelled
    run_at       bigint not null,
    attempt      bigint not null default 0, -- the fencing number
    max_attempts bigint not null default 3,
    worker       text not null default '',
    lease_until  bigint not null default 0,
    result       text not null default '{}',
    error        text not null default '',
    node_id      bigint,
    created      bigint not null,
    finished     bigint not null default 0
);
create index jobs_claim on jobs (queue, state, run_at);
create unique index jobs_unique on jobs (unique_key) where unique_key is not null and state in ('ready', 'running');

-- The VLANs that a rack serves, with the address and interface it serves them on.
create table rack_vlans (
    rack_id   bigint not null references nodes (id) on delete cascade,
    vlan_id   bigint not null references vlans (id) on delete cascade,
    interface text not null,
    address   text not null,
    primary key (rack_id, vlan_id)
);

-- One row per observed boot; steps are JSON: [{at, step, detail}].
create table boots (
    id      {{pk}},
    node_id bigint references nodes (id) on delete cascade,
    mac     text not null,
    rack    text not null default '',
    purpose text not null default '',
    steps   text not null default '[]',
    verdict text not null default '', -- '' while it runs
    started bigint not null,
    updated bigint not null
);
create index boots_mac on boots (mac, id);
create index boots_node on boots (node_id, id);

-- Groups and what they may do. The first two are Administrators and Users; a new user is in one of them.
create table user_groups (
    id          {{pk}},
    name        text not null unique,
    description text not null default '',
    created     bigint not null,
    updated     bigint not null
);

create table group_members (
    group_id bigint not null references user_groups (id) on delete cascade,
    user_id  bigint not null references users (id) on delete cascade,
    primary key (group_id, user_id)
);
create index group_members_user on group_members (user_id);

create table group_entitlements (
    id          {{pk}},
    group_id    bigint not null references user_groups (id) on delete cascade,
    pool_id     bigint references pools (id) on delete cascade, -- null: everywhere
    entitlement text not null
);
create unique index group_entitlements_global on group_entitlements (group_id, entitlement) where pool_id is null;
create unique index group_entitlements_pool on group_entitlements (group_id, pool_id, entitlement) where pool_id is not null;

create table ssl_keys (
    id      {{pk}},
    user_id bigint not null references users (id) on delete cascade,
    key     text not null, -- PEM
    created bigint not null,
    unique (user_id, key)
);

-- Names in a domain that people make. The names of machines are not here: they follow from the machines.
create table dns_resources (
    id          {{pk}},
    domain_id   bigint not null references domains (id),
    name        text not null, -- below the domain; @: the domain itself
    address_ttl bigint,
    created     bigint not null,
    updated     bigint not null,
    unique (domain_id, name)
);

create table dns_resource_addresses (
    resource_id bigint not null references dns_resources (id) on delete cascade,
    address_id  bigint not null references ip_addresses (id) on delete cascade,
    primary key (resource_id, address_id)
);
create index dns_resource_addresses_address on dns_resource_addresses (address_id);

create table dns_records (
    id          {{pk}},
    resource_id bigint not null references dns_resources (id) on delete cascade,
    rrtype      text not null, -- CNAME, MX, NS, SRV, SSHFP, TXT
    rrdata      text not null,
    ttl         bigint,
    created     bigint not null,
    updated     bigint not null
);
create index dns_records_resource on dns_records (resource_id);

-- Where images come from, and which of them.
create table boot_sources (
    id                        {{pk}},
    name                      text not null unique,
    url                       text not null unique,
    priority                  bigint not null unique,
    enabled                   bigint not null default 1,
    keyring_filename          text not null default '',
    keyring_data              {{bytes}},
    skip_keyring_verification bigint not null default 0,
    created                   bigint not null,
    updated                   bigint not null
);

create table boot_source_selections (
    id        {{pk}},
    source_id bigint not null references boot_sources (id) on delete cascade,
    os        text not null,
    release   text not null,
    arches    text not null default '[]',
    subarches text not null default '[]',
    labels    text not null default '[]',
    created   bigint not null,
    updated   bigint not null,
    unique (source_id, os, release)
);

create table package_repositories (
    id                  {{pk}},
    name                text not null unique,
    url                 text not null,
    distributions       text not null default '[]',
    disabled_pockets    text not null default '[]',
    disabled_components text not null default '[]',
    disable_sources     bigint not null default 1,
    components          text not null default '[]',
    arches              text not null default '[]',
    key                 text not null default '',
    is_default          bigint not null default 0, -- one of Ubuntu's own archives, which cannot be deleted
    enabled             bigint not null default 1,
    created             bigint not null,
    updated             bigint not null
);

create table license_keys (
    id            {{pk}},
    osystem       text not null,
    distro_series text not null,
    license_key   text not null,
    created       bigint not null,
    updated       bigint not null,
    unique (osystem, distro_series)
);

-- Bcache cache sets: the name is cache and the place among the node's. The device is the file system with that cache_set_id.
create table cache_sets (
    id      {{pk}},
    node_id bigint not null references nodes (id) on delete cascade,
    created bigint not null,
    updated bigint not null
);
create index cache_sets_node on cache_sets (node_id);

-- Volume groups, RAIDs, bcaches, VMFS datastores. The members are the file systems with that group_id; what they make up are the virtual
-- block devices with that group_id: the logical volumes, or the one device.
create table storage_groups (
    id           {{pk}},
    node_id      bigint not null references nodes (id) on delete cascade,
    type         text not null, -- lvm-vg, raid-0, raid-1, raid-5, raid-6, raid-10, bcache, vmfs6
    name         text not null,
    uuid         text not null unique,
    cache_mode   text not null default '', -- of a bcache: writeback, writethrough, writearound
    cache_set_id bigint references cache_sets (id) on delete cascade,
    created      bigint not null,
    updated      bigint not null
);
create index storage_groups_node on storage_groups (node_id);
alter table block_devices add column group_id bigint references storage_groups (id) on delete cascade;
alter table filesystems add column group_id bigint references storage_groups (id) on delete cascade;
alter table filesystems add column cache_set_id bigint references cache_sets (id) on delete cascade;
-- The copies that count while the node is allocated; they end with that.
alter table filesystems add column acquired bigint not null default 0;
create index block_devices_group on block_devices (group_id) where group_id is not null;
create index filesystems_device on filesystems (block_device_id) where block_device_id is not null;
create index filesystems_partition on filesystems (partition_id) where partition_id is not null;

-- An address that is kept for a MAC address, whether a machine has that or not.
create table reserved_ips (
    id        {{pk}},
    subnet_id bigint not null references subnets (id) on delete cascade,
    ip        {{bytes}} not null unique,
    mac       text not null, -- lower case, colons
    comment   text not null default '',
    created   bigint not null,
    updated   bigint not null,
    unique (mac, subnet_id)
);
create index reserved_ips_subnet on reserved_ips (subnet_id);

-- Machines with an address in the source subnet reach the destination through the gateway.
create table static_routes (
    id             {{pk}},
    source_id      bigint not null references subnets (id) on delete cascade,
    destination_id bigint not null references subnets (id) on delete cascade,
    gateway_ip     {{bytes}} not null,
    metric         bigint not null default 0,
    created        bigint not null,
    updated        bigint not null,
    unique (source_id, destination_id, gateway_ip)
);

-- Configuration text for a DHCP server, with all its versions. Without node and subnet it is global.
create table dhcp_snippets (
    id          {{pk}},
    name        text not null unique,
    description text not null default '',
    enabled     bigint not null default 1,
    node_id     bigint references nodes (id) on delete cascade,
    subnet_id   bigint references subnets (id) on delete cascade,
    iprange_id  bigint references ipranges (id) on delete cascade,
    created     bigint not null,
    updated     bigint not null
);

create table dhcp_snippet_values (
    id         {{pk}},
    snippet_id bigint not null references dhcp_snippets (id) on delete cascade,
    value      text not null,
    created    bigint not null
);
create index dhcp_snippet_values_snippet on dhcp_snippet_values (snippet_id, id);

-- Who was seen on a network, by its lease or by a scan.
create table neighbours (
    id        {{pk}},
    ip        {{bytes}} not null,
    mac       text not null,
    vlan_id   bigint references vlans (id) on delete cascade,
    rack_id   bigint references nodes (id) on delete set null, -- who saw it
    interface text not null default '',
    hostname  text not null default '',
    created   bigint not null,
    last_seen bigint not null,
    unique (ip, mac)
);

-- PCI and USB devices that the inventory found.
create table node_devices (
    id            {{pk}},
    node_id       bigint not null references nodes (id) on delete cascade,
    bus           bigint not null, -- 1 PCIE, 2 USB
    hardware_type bigint not null default 0, -- as of scripts
    vendor_id     text not null,
    product_id    text not null,
    vendor_name   text not null default '',
    product_name  text not null default '',
    driver        text not null default '',
    bus_number    bigint not null default 0,
    device_number bigint not null default 0,
    pci_address   text,
    numa_node     bigint not null default 0,
    interface_id  bigint references interfaces (id) on delete set null,
    block_device_id bigint references block_devices (id) on delete set null,
    vpd           text not null default '{}',
    created       bigint not null,
    updated       bigint not null
);
create index node_devices_node on node_devices (node_id, id);

create table notifications (
    id          {{pk}},
    ident       text unique,
    user_id     bigint references users (id) on delete cascade,
    users       bigint not null default 0,
    admins      bigint not null default 0,
    message     text not null,
    context     text not null default '{}',
    category    text not null default 'info',
    dismissable bigint not null default 1,
    created     bigint not null,
    updated     bigint not null
);

create table notification_dismissals (
    notification_id bigint not null references notifications (id) on delete cascade,
    user_id         bigint not null references users (id) on delete cascade,
    created         bigint not null,
    primary key (notification_id, user_id)
);

-- The files that users keep here: Juju does. Anybody who knows a file's key may read it.
create table files (
    id       {{pk}},
    user_id  bigint not null references users (id) on delete cascade,
    filename text not null,
    content  {{bytes}} not null,
    key      text not null unique,
    created  bigint not null,
    updated  bigint not null,
    unique (user_id, filename)
);

-- What is known of a boot source: when it was read last, what was wrong then, and what it offers. No row: it was never read.
create table boot_source_states (
    source_id bigint primary key references boot_sources (id) on delete cascade,
    checked   bigint not null,
    error     text not null default '',
    offers    text not null default '[]' -- JSON: releases with their architectures, subarchitectures and labels
);

-- The boot source that a synced image came from. The source may be gone already; then its images go with the next sync.
create table boot_resource_origins (
    resource_id bigint primary key references boot_resources (id) on delete cascade,
    source_id   bigint not null
);

-- What a rack holds of the images' content, as it last said.
create table rack_caches (
    rack_id  bigint primary key references nodes (id) on delete cascade,
    contents text not null default '[]', -- JSON: SHA-256 digests
    shared   bigint not null default 0, -- it reads the region's own store
    updated  bigint not null
);

-- Templates by which operators override preseeds. The name says which one, and for what: prefix_os_arch_subarch_release_hostname, from the
-- right as far as it matters.
create table preseed_templates (
    id      {{pk}},
    name    text not null unique,
    content text not null,
    created bigint not null,
    updated bigint not null
);

-- Mirror trees that CentOS and its kin are installed from by kickstart. The kernel and the initrd of the tree's installer are files of the boot
-- resource, which is there once they were fetched.
create table install_trees (
    id           {{pk}},
    name         text not null, -- os/series
    architecture text not null, -- amd64
    url          text not null,
    repositories text not null default '[]', -- JSON: NAME=URL
    packages     text not null default '[]', -- JSON
    timezone     text not null default '',
    language     text not null default '',
    keyboard     text not null default '',
    resource_id  bigint references boot_resources (id) on delete set null,
    state        text not null default 'waiting', -- waiting, ready, failed
    error        text not null default '',
    created      bigint not null,
    updated      bigint not null,
    unique (name, architecture)
);

-- What was made up for a node and is told to its owner: a Windows machine's password. It ends with the node's credentials.
create table node_secrets (
    node_id bigint not null references node_tokens (node_id) on delete cascade,
    name    text not null,
    value   text not null,
    created bigint not null,
    primary key (node_id, name)
);

-- The unique index is of physical interfaces alone; bonds and VLAN interfaces have an address too.
create index interfaces_any_mac on interfaces (mac_address);
