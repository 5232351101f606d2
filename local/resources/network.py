"""EC2's network resources. They have no names, so what exists is found by the id that was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
    associated = aws.client("ec2").associate_route_table(
        SubnetId=inputs["subnetId"], RouteTableId=inputs["routeTableId"]
    )
    return Applied(associated["AssociationId"], {})


def _association_exists(aws: Connection, id: str, inputs: Inputs) -> bool:
    tables = aws.client("ec2").describe_route_tables()["RouteTables"]
    return any(
        link.get("RouteTableAssociationId") == id
        for table in tables
        if table["RouteTableId"] == inputs["routeTableId"]
        for link in table.get("Associations", [])
    )


def _security_group(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    if id is None:
        id = ec2.create_security_group(
            # The provider makes a name up as well; the description and the tags are what people see.
            GroupName=f"goldlake-{hashlib.sha256(inputs['description'].encode()).hexdigest()[:8]}",
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
    """Return the kind of an ingress or egress rule; its id is made of group and rule, as the emulator gives none."""

    def apply(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
        group = inputs["securityGroupId"]
        if id is None:
            authorize = getattr(aws.client("ec2"), f"authorize_security_group_{direction}")
            authorize(GroupId=group, IpPermissions=[_permission(inputs)])
        return Applied(f"{group}:{direction}:{inputs['description']}", {})

    def exists(aws: Connection, id: str, inputs: Inputs) -> bool:
        try:
            groups = aws.client("ec2").describe_security_groups(GroupIds=[inputs["securityGroupId"]])
        except ClientError as exc:
            if exc.response["Error"]["Code"].endswith("NotFound"):
                return False
            raise
        key = "IpPermissions" if direction == "ingress" else "IpPermissionsEgress"
        return any(rule.get("FromPort") == int(inputs["fromPort"]) for rule in groups["SecurityGroups"][0].get(key, []))

    return Kind(apply, exists)


def _endpoint(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    ec2 = aws.client("ec2")
    if id is None:
        interface = inputs["vpcEndpointType"] == "Interface"
        settings: dict[str, Any] = (
            {
                "SubnetIds": list(inputs["subnetIds"]),
                "SecurityGroupIds": list(inputs["securityGroupIds"]),
                "PrivateDnsEnabled": inputs["privateDnsEnabled"],
            }
            if interface
            else {"RouteTableIds": list(inputs["routeTableIds"])}
        )
        id = ec2.create_vpc_endpoint(
            VpcId=inputs["vpcId"],
            ServiceName=inputs["serviceName"],
            VpcEndpointType=inputs["vpcEndpointType"],
            **settings,
        )["VpcEndpoint"]["VpcEndpointId"]
    _tagged(aws, str(id), inputs)
    lists = ec2.describe_prefix_lists()["PrefixLists"]
    prefix_list = next((p["PrefixListId"] for p in lists if p["PrefixListName"] == inputs["serviceName"]), None)
    return Applied(str(id), {"prefixListId": prefix_list or "pl-00000000"})


NETWORK = {
    "aws:ec2/vpc:Vpc": Kind(_vpc, _described("describe_vpcs", "VpcIds")),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Kind(
        _default_security_group, _described("describe_security_groups", "GroupIds")
    ),
    "aws:ec2/subnet:Subnet": Kind(_subnet, _described("describe_subnets", "SubnetIds")),
    "aws:ec2/routeTable:RouteTable": Kind(_route_table, _described("describe_route_tables", "RouteTableIds")),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Kind(_association, _association_exists),
    "aws:ec2/securityGroup:SecurityGroup": Kind(_security_group, _described("describe_security_groups", "GroupIds")),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rule("egress"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rule("ingress"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Kind(_endpoint, _described("describe_vpc_endpoints", "VpcEndpointIds")),
}
