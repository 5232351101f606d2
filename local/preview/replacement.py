"""Which inputs can't change in place, by type, and which types hold data.

The provider's package ships no schema, so this is a table. Source: the attributes with ForceNew (plugin SDK) or
RequiresReplace (plugin framework) in the schemas of hashicorp/terraform-provider-aws (internal/service/<service>/) and
terraform-provider-random, which Pulumi's providers are bridges to; inputs under the bridge's names. A test holds that
every type the program registers is in it. `pulumi preview` asks the provider itself, and is right where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping

_NAME = frozenset({"name", "namePrefix"})
_BUCKET = frozenset({"bucket"})
_OWNED_BUCKET = frozenset({"bucket", "expectedBucketOwner"})
# Every resource of the AWS provider since version 6 (7 of Pulumi's) has one, but those of global services.
_REGION = "region"

FORCE_NEW: Mapping[str, frozenset[str]] = {
    "aws:cloudwatch/dashboard:Dashboard": frozenset({"dashboardName"}),
    "aws:cloudwatch/eventRule:EventRule": _NAME | {"eventBusName"},
    "aws:cloudwatch/eventTarget:EventTarget": frozenset({"rule", "eventBusName", "targetId"}),
    "aws:cloudwatch/logGroup:LogGroup": _NAME | {"logGroupClass"},
    "aws:cloudwatch/metricAlarm:MetricAlarm": frozenset({"name"}),
    "aws:dynamodb/table:Table": frozenset({"name", "hashKey", "rangeKey", "localSecondaryIndexes", "importTable"}),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": frozenset({"vpcId"}),
    "aws:ec2/eip:Eip": frozenset({"address", "domain", "ipamPoolId", "networkBorderGroup", "publicIpv4Pool"}),
    "aws:ec2/flowLog:FlowLog": frozenset(
        {
            "deliverCrossAccountRole",
            "destinationOptions",
            "eniId",
            "iamRoleArn",
            "logDestination",
            "logDestinationType",
            "logFormat",
            "maxAggregationInterval",
            "subnetId",
            "trafficType",
            "transitGatewayAttachmentId",
            "transitGatewayId",
            "vpcId",
        }
    ),
    "aws:ec2/internetGateway:InternetGateway": frozenset(),
    "aws:ec2/natGateway:NatGateway": frozenset({"allocationId", "connectivityType", "privateIp", "subnetId"}),
    "aws:ec2/route:Route": frozenset(
        {"routeTableId", "destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId"}
    ),
    "aws:ec2/routeTable:RouteTable": frozenset({"vpcId"}),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": frozenset({"subnetId", "gatewayId"}),
    "aws:ec2/securityGroup:SecurityGroup": _NAME | {"description", "vpcId"},
    "aws:ec2/subnet:Subnet": frozenset(
        {
            "availabilityZone",
            "availabilityZoneId",
            "cidrBlock",
            "ipv4IpamPoolId",
            "ipv4NetmaskLength",
            "ipv6IpamPoolId",
            "ipv6Native",
            "ipv6NetmaskLength",
            "outpostArn",
            "vpcId",
        }
    ),
    "aws:ec2/vpc:Vpc": frozenset({"cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength"}),
    "aws:ec2/vpcEndpoint:VpcEndpoint": frozenset(
        {"resourceConfigurationArn", "serviceName", "serviceNetworkArn", "serviceRegion", "vpcEndpointType", "vpcId"}
    ),
    "aws:glue/catalogDatabase:CatalogDatabase": frozenset({"catalogId", "name"}),
    "aws:iam/role:Role": _NAME | {"path"},
    "aws:iam/rolePolicy:RolePolicy": _NAME | {"role"},
    "aws:kms/alias:Alias": _NAME,
    "aws:kms/key:Key": frozenset(
        {"customKeyStoreId", "customerMasterKeySpec", "keyUsage", "multiRegion", "xksKeyId"},
    ),
    "aws:lambda/alias:Alias": frozenset({"functionName", "name"}),
    "aws:lambda/function:Function": frozenset({"name", "packageType", "tenancyConfig"}),
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": frozenset({"functionName", "qualifier"}),
    # A layer's version is what it is: every change is another version.
    "aws:lambda/layerVersion:LayerVersion": frozenset(
        {
            "code",
            "compatibleArchitectures",
            "compatibleRuntimes",
            "description",
            "layerName",
            "licenseInfo",
            "s3Bucket",
            "s3Key",
            "s3ObjectVersion",
            "sourceCodeHash",
        }
    ),
    "aws:lambda/permission:Permission": frozenset(
        {
            "action",
            "eventSourceToken",
            "function",
            "functionUrlAuthType",
            "principal",
            "principalOrgId",
            "qualifier",
            "sourceAccount",
            "sourceArn",
            "statementId",
            "statementIdPrefix",
        }
    ),
    # A statement that changes is sent again, as a new one.
    "aws:redshiftdata/statement:Statement": frozenset(
        {
            "clusterIdentifier",
            "database",
            "dbUser",
            "parameters",
            "secretArn",
            "sql",
            "statementName",
            "withEvent",
            "workgroupName",
        }
    ),
    "aws:redshiftserverless/namespace:Namespace": frozenset({"dbName", "namespaceName"}),
    "aws:redshiftserverless/usageLimit:UsageLimit": frozenset({"period", "resourceArn", "usageType"}),
    "aws:redshiftserverless/workgroup:Workgroup": frozenset({"namespaceName", "workgroupName"}),
    "aws:s3/bucket:Bucket": frozenset({"bucket", "bucketNamespace", "bucketPrefix", "objectLockEnabled"}),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _OWNED_BUCKET,
    "aws:s3/bucketLogging:BucketLogging": _OWNED_BUCKET,
    "aws:s3/bucketObjectv2:BucketObjectv2": frozenset({"bucket", "key"}),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _BUCKET,
    "aws:s3/bucketPolicy:BucketPolicy": _BUCKET,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _BUCKET,
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _OWNED_BUCKET,
    "aws:s3/bucketVersioning:BucketVersioning": _OWNED_BUCKET,
    "aws:s3/inventory:Inventory": frozenset({"bucket", "name"}),
    "aws:scheduler/schedule:Schedule": _NAME | {"groupName"},
    "aws:secretsmanager/secret:Secret": _NAME | {"type"},
    "aws:secretsmanager/secretPolicy:SecretPolicy": frozenset({"secretArn"}),
    "aws:secretsmanager/secretRotation:SecretRotation": frozenset({"secretId"}),
    "aws:secretsmanager/secretVersion:SecretVersion": frozenset({"secretId", "secretBinary", "secretString"}),
    "aws:sfn/stateMachine:StateMachine": _NAME | {"type"},
    "aws:sns/topic:Topic": _NAME | {"fifoTopic"},
    "aws:sns/topicPolicy:TopicPolicy": frozenset({"arn"}),
    "aws:sns/topicSubscription:TopicSubscription": frozenset({"endpoint", "protocol", "topic"}),
    "aws:sqs/queue:Queue": _NAME | {"fifoQueue"},
    "aws:sqs/queuePolicy:QueuePolicy": frozenset({"queueUrl"}),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": frozenset({"securityGroupId"}),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": frozenset({"securityGroupId"}),
    "random:index/randomPassword:RandomPassword": frozenset(
        {
            "keepers",
            "length",
            "lower",
            "minLower",
            "minNumeric",
            "minSpecial",
            "minUpper",
            "number",
            "numeric",
            "overrideSpecial",
            "special",
            "upper",
        }
    ),
}

# What holds data. A Glue database takes its tables' definitions with it, a key what it has encrypted.
DATA_STORES = frozenset(
    {
        "aws:dynamodb/table:Table",
        "aws:glue/catalogDatabase:CatalogDatabase",
        "aws:kms/key:Key",
        "aws:redshiftserverless/namespace:Namespace",
        "aws:s3/bucket:Bucket",
        "aws:secretsmanager/secret:Secret",
    }
)


def force_new(type_token: str) -> frozenset[str]:
    """Return the inputs of a type whose change makes a new resource; of an unknown type the region only."""
    if not type_token.startswith("aws:"):
        return FORCE_NEW.get(type_token, frozenset())
    return FORCE_NEW.get(type_token, frozenset()) | {_REGION}
