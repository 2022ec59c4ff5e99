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
    last_login    bigint not null default 0
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
    authoritative bigint not null default 1
);

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
    created          bigint not null,
    updated          bigint not null,
    unique (node_id, name)
);
create unique index interfaces_mac on interfaces (mac_address) where type = 'physical';
create index interfaces_vlan on interfaces (vlan_id);

create table interface_parents (
    child_id  bigint not null references interfaces (id) on delete cascade,
    parent_id bigint not null references interfaces (id) on delete cascade,
    primary key (child_id, parent_id)
);

-- Links and addresses. alloc_type: 0 auto, 1 sticky (static), 4 user reserved, 5 dhcp, 6 discovered. mode link_up is sticky without ip.
create table ip_addresses (
    id           {{pk}},
    interface_id bigint references interfaces (id) on delete cascade,
    subnet_id    bigint references subnets (id) on delete cascade,
    ip           {{bytes}}, -- null: none yet (auto, dhcp) or link_up
    alloc_type   bigint not null,
    user_id      bigint references users (id) on delete set null,
    default_gateway bigint not null default 0, -- the node's default route of this family goes through this link
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

create table scripts (
    id        {{pk}},
    name      text not null unique,
    type      text not null, -- commissioning, testing, release, deployment
    is_default bigint not null default 0,
    content   {{bytes}} not null,
    meta      text not null default '{}',
    created   bigint not null,
    updated   bigint not null
);

create table script_sets (
    id      {{pk}},
    node_id bigint not null references nodes (id) on delete cascade,
    type    bigint not null, -- 0 commissioning, 1 installation, 2 testing, 3 release
    created bigint not null
);
create index script_sets_node on script_sets (node_id, type, id);

create table script_results (
    id          {{pk}},
    set_id      bigint not null references script_sets (id) on delete cascade,
    name        text not null,
    status      bigint not null, -- 0 pending 1 running 2 passed 3 failed 4 timed out 5 aborted
    exit_status bigint,
    output      {{bytes}},
    stdout      {{bytes}},
    stderr      {{bytes}},
    result      {{bytes}},
    started     bigint not null default 0,
    ended       bigint not null default 0,
    updated     bigint not null,
    unique (set_id, name)
);

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
