"""EC2's network resources. Most have no names, so what exists is found by the id that was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import ClientError

from local.resources.kinds import Applied, Inputs, Kind, tag_list
from runtime.aws import Connection


def _described(method: str, parameter: str) -> Callable[[Connection, str, Inputs], bool]:
    """Return an `exists` that asks EC2's describe call for the id."""

    def exists(aws: Connection, id: str, _inputs: Inputs) -> bool:
        try:
            answer = getattr(aws.client("ec2"), method)(**{parameter: [id]})
        except ClientError as exc:
            # InvalidVpcID.NotFound, InvalidSubnetID.NotFound, …
            if exc.response["Error"]["Code"].endswith("NotFound"):
                return False
            raise
        return any(value for key, value in answer.items() if key != "ResponseMetadata")

    return exists


def _tagged(aws: Connection, id: str, inputs: Inputs) -> None:
    aws.client("ec2").create_tags(Resources=[id], Tags=tag_list(inputs.get("tags")))


def _vpc(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    id = id or ec2.create_vpc(CidrBlock=inputs["cidrBlock"])["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=id, EnableDnsSupport={"Value": inputs["enableDnsSupport"]})
    ec2.modify_vpc_attribute(VpcId=id, EnableDnsHostnames={"Value": inputs["enableDnsHostnames"]})
    _tagged(aws, id, inputs)
    return Applied(id, {"cidrBlock": inputs["cidrBlock"]})


def _default_security_group(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    """Adopt the group that every VPC comes with, and take its rules away, as the provider does."""
    ec2 = aws.client("ec2")
    group = ec2.describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [inputs["vpcId"]]},
            {"Name": "group-name", "Values": ["default"]},
        ]
    )["SecurityGroups"][0]
    id = group["GroupId"]
    if group.get("IpPermissions"):
        ec2.revoke_security_group_ingress(GroupId=id, IpPermissions=group["IpPermissions"])
    if group.get("IpPermissionsEgress"):
        ec2.revoke_security_group_egress(GroupId=id, IpPermissions=group["IpPermissionsEgress"])
    _tagged(aws, id, inputs)
    return Applied(id, {})


def _subnet(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    id = (
        id
        or ec2.create_subnet(
            VpcId=inputs["vpcId"], CidrBlock=inputs["cidrBlock"], AvailabilityZone=inputs["availabilityZone"]
        )["Subnet"]["SubnetId"]
    )
    _tagged(aws, id, inputs)
    return Applied(id, {})


def _route_table(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    id = id or aws.client("ec2").create_route_table(VpcId=inputs["vpcId"])["RouteTable"]["RouteTableId"]
    _tagged(aws, id, inputs)
    return Applied(id, {})


def _association(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    """Give the subnet its route table. A subnet has one, so another one's place is taken."""
    ec2 = aws.client("ec2")
    subnet, wanted = inputs["subnetId"], inputs["routeTableId"]
    for table in ec2.describe_route_tables()["RouteTables"]:
        for link in table.get("Associations", []):
            if link.get("SubnetId") != subnet:
                continue
            id = link["RouteTableAssociationId"]
            if table["RouteTableId"] != wanted:
                id = ec2.replace_route_table_association(AssociationId=id, RouteTableId=wanted)["NewAssociationId"]
            return Applied(id, {})
    return Applied(ec2.associate_route_table(SubnetId=subnet, RouteTableId=wanted)["AssociationId"], {})


def _association_exists(aws: Connection, id: str, inputs: Inputs) -> bool:
    tables = aws.client("ec2").describe_route_tables()["RouteTables"]
    return any(
        link.get("RouteTableAssociationId") == id
        for table in tables
        if table["RouteTableId"] == inputs["routeTableId"]
        for link in table.get("Associations", [])
    )


def _internet_gateway(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    id = id or ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    gateway = ec2.describe_internet_gateways(InternetGatewayIds=[id])["InternetGateways"][0]
    if not gateway.get("Attachments"):
        ec2.attach_internet_gateway(InternetGatewayId=id, VpcId=inputs["vpcId"])
    _tagged(aws, str(id), inputs)
    return Applied(str(id), {})


def _address(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    id = id or ec2.allocate_address(Domain=inputs["domain"])["AllocationId"]
    _tagged(aws, str(id), inputs)
    found = ec2.describe_addresses(AllocationIds=[id])["Addresses"][0]
    return Applied(str(id), {"allocationId": id, "publicIp": found["PublicIp"]})


def _nat_gateway(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    id = (
        id
        or aws.client("ec2").create_nat_gateway(
            SubnetId=inputs["subnetId"],
            AllocationId=inputs["allocationId"],
            ConnectivityType=inputs["connectivityType"],
        )["NatGateway"]["NatGatewayId"]
    )
    _tagged(aws, str(id), inputs)
    return Applied(str(id), {})


def _nat_gateway_exists(aws: Connection, id: str, _inputs: Inputs) -> bool:
    """Return whether it is there and works: a deleted one is described for an hour."""
    try:
        gateways = aws.client("ec2").describe_nat_gateways(NatGatewayIds=[id])["NatGateways"]
    except ClientError as exc:
        if exc.response["Error"]["Code"].endswith("NotFound"):
            return False
        raise
    return any(gateway["State"] not in ("deleting", "deleted", "failed") for gateway in gateways)


# Where a route leads, under the provider's names and under EC2's.
_TARGETS = {"gatewayId": "GatewayId", "natGatewayId": "NatGatewayId"}


def _route_found(aws: Connection, inputs: Inputs) -> dict[str, Any] | None:
    """Return the route to the destination, wherever it leads; EC2 allows one in a table."""
    try:
        tables = aws.client("ec2").describe_route_tables(RouteTableIds=[inputs["routeTableId"]])["RouteTables"]
    except ClientError as exc:
        if exc.response["Error"]["Code"].endswith("NotFound"):
            return None
        raise
    routes = (route for table in tables for route in table.get("Routes", []))
    wanted = inputs["destinationCidrBlock"]
    return next((dict(route) for route in routes if route.get("DestinationCidrBlock") == wanted), None)


def _route_target(inputs: Inputs) -> dict[str, str]:
    return {theirs: inputs[ours] for ours, theirs in _TARGETS.items() if inputs.get(ours)}


def _route(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    put = ec2.replace_route if _route_found(aws, inputs) else ec2.create_route
    table, destination = inputs["routeTableId"], inputs["destinationCidrBlock"]
    put(RouteTableId=table, DestinationCidrBlock=destination, **_route_target(inputs))
    return Applied(f"{table}:{destination}", {})


def _route_exists(aws: Connection, _id: str, inputs: Inputs) -> bool:
    route = _route_found(aws, inputs)
    return route is not None and _route_target(inputs).items() <= route.items()


def _flow_log(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    """Create the flow log. EC2 changes none but its tags, and the provider replaces it as well."""
    ec2 = aws.client("ec2")
    if id is None:
        id = ec2.create_flow_logs(
            ResourceIds=[inputs["vpcId"]],
            ResourceType="VPC",
            TrafficType=inputs["trafficType"],
            LogDestinationType=inputs["logDestinationType"],
            LogDestination=inputs["logDestination"],
            DeliverLogsPermissionArn=inputs["iamRoleArn"],
        )["FlowLogIds"][0]
    _tagged(aws, str(id), inputs)
    return Applied(str(id), {})


def _security_group(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    if id is None:
        id = ec2.create_security_group(
            GroupName=inputs["name"],
            Description=inputs["description"],
            VpcId=inputs["vpcId"],
        )["GroupId"]
        # EC2 opens all egress of a new group; the provider closes it, and so do we.
        group = ec2.describe_security_groups(GroupIds=[id])["SecurityGroups"][0]
        if group.get("IpPermissionsEgress"):
            ec2.revoke_security_group_egress(GroupId=id, IpPermissions=group["IpPermissionsEgress"])
    _tagged(aws, id, inputs)
    return Applied(str(id), {})


def _permission(inputs: Inputs) -> dict[str, Any]:
    """Return the rule as EC2's IpPermission."""
    permission: dict[str, Any] = {
        "IpProtocol": inputs["ipProtocol"],
        "FromPort": int(inputs["fromPort"]),
        "ToPort": int(inputs["toPort"]),
    }
    text = {"Description": inputs["description"]}
    if inputs.get("cidrIpv4"):
        permission["IpRanges"] = [{"CidrIp": inputs["cidrIpv4"], **text}]
    if inputs.get("prefixListId"):
        permission["PrefixListIds"] = [{"PrefixListId": inputs["prefixListId"], **text}]
    if inputs.get("referencedSecurityGroupId"):
        permission["UserIdGroupPairs"] = [{"GroupId": inputs["referencedSecurityGroupId"], **text}]
    return permission


def _rule(direction: str) -> Kind:
    """Return the kind of an ingress or egress rule, which has an id of its own: rules of one port differ by it."""

    def apply(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
        ec2, group = aws.client("ec2"), inputs["securityGroupId"]
        if id is not None:
            getattr(ec2, f"revoke_security_group_{direction}")(GroupId=group, SecurityGroupRuleIds=[id])
        authorize = getattr(ec2, f"authorize_security_group_{direction}")
        made = authorize(GroupId=group, IpPermissions=[_permission(inputs)])["SecurityGroupRules"][0]
        id = str(made["SecurityGroupRuleId"])
        _tagged(aws, id, inputs)
        return Applied(id, {"securityGroupRuleId": id})

    def exists(aws: Connection, id: str, inputs: Inputs) -> bool:
        # By the group, not by the rule's id: EC2 refuses an id of another shape, as older records hold.
        filters = [{"Name": "group-id", "Values": [inputs["securityGroupId"]]}]
        rules = aws.client("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
        return any(rule["SecurityGroupRuleId"] == id for rule in rules)

    return Kind(apply, exists)


def _changes(name: str, wanted: Sequence[str], there: Sequence[str]) -> dict[str, list[str]]:
    """Return what to add to a list of ids and what to remove, as ModifyVpcEndpoint wants it."""
    added, removed = sorted(set(wanted) - set(there)), sorted(set(there) - set(wanted))
    return {key: ids for key, ids in ((f"Add{name}", added), (f"Remove{name}", removed)) if ids}


def _endpoint(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    if id is None:
        id = _new_endpoint(ec2, inputs)
    there = ec2.describe_vpc_endpoints(VpcEndpointIds=[id])["VpcEndpoints"][0]
    ec2.modify_vpc_endpoint(
        VpcEndpointId=id,
        PolicyDocument=inputs["policy"],
        **_changes("RouteTableIds", inputs.get("routeTableIds") or [], there.get("RouteTableIds", [])),
        **_changes("SubnetIds", inputs.get("subnetIds") or [], there.get("SubnetIds", [])),
    )
    _tagged(aws, str(id), inputs)
    lists = ec2.describe_prefix_lists()["PrefixLists"]
    prefix_list = next((p["PrefixListId"] for p in lists if p["PrefixListName"] == inputs["serviceName"]), None)
    return Applied(str(id), {"prefixListId": prefix_list or "pl-00000000"})


def _new_endpoint(ec2: Any, inputs: Inputs) -> str:
    if inputs["vpcEndpointType"] == "Interface":
        settings: dict[str, Any] = {
            "SubnetIds": list(inputs["subnetIds"]),
            "SecurityGroupIds": list(inputs["securityGroupIds"]),
            "PrivateDnsEnabled": inputs["privateDnsEnabled"],
        }
    else:
        settings = {"RouteTableIds": list(inputs["routeTableIds"])}
    made = ec2.create_vpc_endpoint(
        VpcId=inputs["vpcId"],
        ServiceName=inputs["serviceName"],
        VpcEndpointType=inputs["vpcEndpointType"],
        PolicyDocument=inputs["policy"],
        **settings,
    )
    return str(made["VpcEndpoint"]["VpcEndpointId"])


NETWORK = {
    "aws:ec2/vpc:Vpc": Kind(_vpc, _described("describe_vpcs", "VpcIds")),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Kind(
        _default_security_group, _described("describe_security_groups", "GroupIds")
    ),
    "aws:ec2/subnet:Subnet": Kind(_subnet, _described("describe_subnets", "SubnetIds")),
    "aws:ec2/routeTable:RouteTable": Kind(_route_table, _described("describe_route_tables", "RouteTableIds")),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Kind(_association, _association_exists),
    "aws:ec2/internetGateway:InternetGateway": Kind(
        _internet_gateway, _described("describe_internet_gateways", "InternetGatewayIds")
    ),
    "aws:ec2/eip:Eip": Kind(_address, _described("describe_addresses", "AllocationIds")),
    "aws:ec2/natGateway:NatGateway": Kind(_nat_gateway, _nat_gateway_exists),
    "aws:ec2/route:Route": Kind(_route, _route_exists),
    "aws:ec2/flowLog:FlowLog": Kind(_flow_log, _described("describe_flow_logs", "FlowLogIds")),
    "aws:ec2/securityGroup:SecurityGroup": Kind(_security_group, _described("describe_security_groups", "GroupIds")),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rule("egress"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rule("ingress"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Kind(_endpoint, _described("describe_vpc_endpoints", "VpcEndpointIds")),
}

RECORDED_ONLY: dict[str, str] = {}
"""Types of the network that the emulator cannot create, with the reason: none. What it forgets of those that it does
create: an endpoint's policy, security groups and private DNS, a rule's prefix list, a NAT gateway's address."""
