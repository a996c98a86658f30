// SPDX-License-Identifier: GPL-2.0
/*
 * Driver for PF and VFs of the card that my-card.ts models: a doorbell, a mailbox to every other function and a DMA
 * engine, each with an MSI-X vector of its own. A shell uses them through files in the function's folder of sysfs:
 *
 *   doorbell	writing a number rings it; reads how often it was rung
 *   mailbox	writing "TO MESSAGE" sends; reads "FROM MESSAGE", what came last
 *   dma	writing has the card copy that text from one buffer to another; reads the other
 *   interrupts	reads how many came by each vector
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>

#define VENDOR_ID	0x1234
#define PF_DEVICE_ID	0xca4d
#define VF_DEVICE_ID	0xca4e

/* Registers in BAR 0, as my-card.ts has them. */
#define MAGIC			0x00
#define FUNCTION_NUMBER		0x04
#define DOORBELL		0x08
#define DOORBELL_COUNT		0x0c
#define MAILBOX_MESSAGE		0x10
#define MAILBOX_SEND		0x14
#define   MAILBOX_SEND_FAILED	BIT(31)
#define MAILBOX_RECEIVED	0x18
#define MAILBOX_SENDER		0x1c
#define DMA_SOURCE_LOW		0x20
#define DMA_SOURCE_HIGH		0x24
#define DMA_DESTINATION_LOW	0x28
#define DMA_DESTINATION_HIGH	0x2c
#define DMA_LENGTH		0x30
#define DMA_CONTROL		0x34
#define   DMA_CONTROL_START	BIT(0)
#define   DMA_CONTROL_FAILED	BIT(2)

#define CARD_MAGIC	0x44524143
#define DMA_TIMEOUT	(5 * HZ)

enum vector { VECTOR_DOORBELL, VECTOR_MAILBOX, VECTOR_DMA, VECTORS };

struct buffer {
	char *data;
	dma_addr_t address;
};

struct card {
	struct pci_dev *pdev;
	void __iomem *registers;
	/* One user at a time of the mailbox that sends, and of the DMA engine with its buffers. */
	struct mutex lock;
	struct completion dma_done;
	struct buffer source, destination;
	size_t length;
	atomic_t interrupts[VECTORS];
};

static struct card *to_card(struct device *dev)
{
	return dev_get_drvdata(dev);
}

static irqreturn_t doorbell_interrupt(int irq, void *data)
{
	struct card *card = data;

	atomic_inc(&card->interrupts[VECTOR_DOORBELL]);
	return IRQ_HANDLED;
}

static irqreturn_t mailbox_interrupt(int irq, void *data)
{
	struct card *card = data;

	atomic_inc(&card->interrupts[VECTOR_MAILBOX]);
	return IRQ_HANDLED;
}

static irqreturn_t dma_interrupt(int irq, void *data)
{
	struct card *card = data;

	atomic_inc(&card->interrupts[VECTOR_DMA]);
	complete(&card->dma_done);
	return IRQ_HANDLED;
}

static const struct {
	const char *name;
	irq_handler_t handler;
} vectors[VECTORS] = {
	[VECTOR_DOORBELL] = { "doorbell", doorbell_interrupt },
	[VECTOR_MAILBOX] = { "mailbox", mailbox_interrupt },
	[VECTOR_DMA] = { "dma", dma_interrupt },
};

static ssize_t doorbell_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", readl(to_card(dev)->registers + DOORBELL_COUNT));
}

static ssize_t doorbell_store(struct device *dev, struct device_attribute *attr,
			      const char *buf, size_t count)
{
	u32 value;
	int error = kstrtou32(buf, 0, &value);

	if (error)
		return error;
	writel(value, to_card(dev)->registers + DOORBELL);
	return count;
}
static DEVICE_ATTR_RW(doorbell);

static ssize_t mailbox_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct card *card = to_card(dev);

	return sysfs_emit(buf, "%u 0x%08x\n", readl(card->registers + MAILBOX_SENDER),
			  readl(card->registers + MAILBOX_RECEIVED));
}

static ssize_t mailbox_store(struct device *dev, struct device_attribute *attr,
			     const char *buf, size_t count)
{
	struct card *card = to_card(dev);
	u32 message, sent;
	u8 to;

	if (sscanf(buf, "%hhu %i", &to, &message) != 2)
		return -EINVAL;
	mutex_lock(&card->lock);
	writel(message, card->registers + MAILBOX_MESSAGE);
	writel(to, card->registers + MAILBOX_SEND);
	sent = readl(card->registers + MAILBOX_SEND);
	mutex_unlock(&card->lock);
	/* Nobody has that number; or this function itself is gone, and all bits are set. */
	return sent & MAILBOX_SEND_FAILED ? -ENXIO : count;
}
static DEVICE_ATTR_RW(mailbox);

/* Has the card copy `length` bytes from one buffer to the other. The lock is held. */
static int card_copy(struct card *card, size_t length)
{
	void __iomem *registers = card->registers;

	reinit_completion(&card->dma_done);
	writel(lower_32_bits(card->source.address), registers + DMA_SOURCE_LOW);
	writel(upper_32_bits(card->source.address), registers + DMA_SOURCE_HIGH);
	writel(lower_32_bits(card->destination.address), registers + DMA_DESTINATION_LOW);
	writel(upper_32_bits(card->destination.address), registers + DMA_DESTINATION_HIGH);
	writel(length, registers + DMA_LENGTH);
	writel(DMA_CONTROL_START, registers + DMA_CONTROL);
	if (!wait_for_completion_timeout(&card->dma_done, DMA_TIMEOUT)) {
		pci_err(card->pdev, "no interrupt after a DMA of %zu bytes\n", length);
		return -ETIMEDOUT;
	}
	return readl(registers + DMA_CONTROL) & DMA_CONTROL_FAILED ? -EIO : 0;
}

static ssize_t dma_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct card *card = to_card(dev);
	size_t length;

	mutex_lock(&card->lock);
	length = card->length;
	memcpy(buf, card->destination.data, length);
	mutex_unlock(&card->lock);
	return length;
}

static ssize_t dma_store(struct device *dev, struct device_attribute *attr,
			 const char *buf, size_t count)
{
	struct card *card = to_card(dev);
	int error;

	mutex_lock(&card->lock);
	memcpy(card->source.data, buf, count);
	memset(card->destination.data, 0, PAGE_SIZE);
	error = card_copy(card, count);
	card->length = error ? 0 : count;
	mutex_unlock(&card->lock);
	return error ?: count;
}
static DEVICE_ATTR_RW(dma);

static ssize_t interrupts_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct card *card = to_card(dev);
	int vector, length = 0;

	for (vector = 0; vector < VECTORS; vector++) {
		length += sysfs_emit_at(buf, length, "%s %d\n", vectors[vector].name,
					atomic_read(&card->interrupts[vector]));
	}
	return length;
}
static DEVICE_ATTR_RO(interrupts);

static struct attribute *card_attrs[] = {
	&dev_attr_doorbell.attr,
	&dev_attr_mailbox.attr,
	&dev_attr_dma.attr,
	&dev_attr_interrupts.attr,
	NULL
};
ATTRIBUTE_GROUPS(card);

static int card_allocate(struct card *card, struct buffer *buffer)
{
	buffer->data = dmam_alloc_coherent(&card->pdev->dev, PAGE_SIZE, &buffer->address,
					   GFP_KERNEL);
	return buffer->data ? 0 : -ENOMEM;
}

static int card_request_interrupts(struct card *card)
{
	struct pci_dev *pdev = card->pdev;
	int vector, error;

	error = pci_alloc_irq_vectors(pdev, VECTORS, VECTORS, PCI_IRQ_MSIX);
	if (error < 0)
		return error;
	for (vector = 0; vector < VECTORS; vector++) {
		error = devm_request_irq(&pdev->dev, pci_irq_vector(pdev, vector),
					 vectors[vector].handler, 0, vectors[vector].name, card);
		if (error)
			return error;
	}
	return 0;
}

/* Of PF and VFs alike: what is managed (pcim_, devm_, dmam_) goes by itself, after remove or a probe that fails. */
static int card_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct card *card;
	u32 magic;
	int error;

	card = devm_kzalloc(&pdev->dev, sizeof(*card), GFP_KERNEL);
	if (!card)
		return -ENOMEM;
	card->pdev = pdev;
	mutex_init(&card->lock);
	init_completion(&card->dma_done);
	pci_set_drvdata(pdev, card);

	error = pcim_enable_device(pdev);
	if (error)
		return error;
	card->registers = pcim_iomap_region(pdev, 0, "my_card");
	if (IS_ERR(card->registers))
		return PTR_ERR(card->registers);
	magic = readl(card->registers + MAGIC);
	if (magic != CARD_MAGIC)
		return dev_err_probe(&pdev->dev, -ENODEV, "this is no such card: 0x%08x\n", magic);

	/* Without it the card reaches no memory, and raises no interrupt. */
	pci_set_master(pdev);
	error = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (error)
		return error;
	error = card_allocate(card, &card->source) ?: card_allocate(card, &card->destination);
	if (error)
		return error;
	error = card_request_interrupts(card);
	if (error)
		return error;
	pci_info(pdev, "function %u of the card\n", readl(card->registers + FUNCTION_NUMBER));
	return 0;
}

static void card_remove(struct pci_dev *pdev)
{
	/* VFs do not outlive the PF's driver. */
	pci_disable_sriov(pdev);
}

/* What `echo N > sriov_numvfs` calls. */
static int card_sriov_configure(struct pci_dev *pdev, int num_vfs)
{
	int error;

	if (num_vfs == 0) {
		pci_disable_sriov(pdev);
		return 0;
	}
	error = pci_enable_sriov(pdev, num_vfs);
	return error ?: num_vfs;
}

static const struct pci_device_id card_ids[] = {
	{ PCI_DEVICE(VENDOR_ID, PF_DEVICE_ID) },
	{ PCI_DEVICE(VENDOR_ID, VF_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, card_ids);

static struct pci_driver card_driver = {
	.name = "my_card",
	.id_table = card_ids,
	.probe = card_probe,
	.remove = card_remove,
	.sriov_configure = card_sriov_configure,
	.dev_groups = card_groups,
};
module_pci_driver(card_driver);

MODULE_DESCRIPTION("Driver for the card of examples/my-card: PF and VFs");
MODULE_LICENSE("GPL");
