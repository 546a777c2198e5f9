/* django-rq's lists call a jQuery plugin that Django no longer has, and lack what its successor looks for. */
'use strict';

if (window.django?.jQuery) {
    window.django.jQuery.fn.actions = function () {
        return this;
    };
}

const bar = document.querySelector('#changelist-form div.actions');
if (bar && !bar.querySelector('.action-counter')) {
    const counter = document.createElement('span');
    counter.className = 'action-counter';
    counter.dataset.actionsIcnt = document.querySelectorAll('tr input.action-select').length;
    bar.append(counter);
}
